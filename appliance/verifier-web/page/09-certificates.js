// X.509 certificates and paths (section 18, steps 6 to 8), as far as time stamps need them. Names are compared byte for
// byte, and trust comes from the pinned roots alone. Whether one was revoked is another question.

const OIDS = {
  signedData: "1.2.840.113549.1.7.2", tstInfo: "1.2.840.113549.1.9.16.1.4",
  contentType: "1.2.840.113549.1.9.3", messageDigest: "1.2.840.113549.1.9.4",
  signingCertificate: "1.2.840.113549.1.9.16.2.12", signingCertificateV2: "1.2.840.113549.1.9.16.2.47",
  sha256: "2.16.840.1.101.3.4.2.1", sha384: "2.16.840.1.101.3.4.2.2", sha512: "2.16.840.1.101.3.4.2.3",
  rsa: "1.2.840.113549.1.1.1", mgf1: "1.2.840.113549.1.1.8", pss: "1.2.840.113549.1.1.10",
  rsaSha256: "1.2.840.113549.1.1.11", rsaSha384: "1.2.840.113549.1.1.12", rsaSha512: "1.2.840.113549.1.1.13",
  ecKey: "1.2.840.10045.2.1", p256: "1.2.840.10045.3.1.7", p384: "1.3.132.0.34",
  ecdsaSha256: "1.2.840.10045.4.3.2", ecdsaSha384: "1.2.840.10045.4.3.3",
  keyIdentifier: "2.5.29.14", keyUsage: "2.5.29.15", altName: "2.5.29.17", basicConstraints: "2.5.29.19",
  nameConstraints: "2.5.29.30", distribution: "2.5.29.31", extendedKeyUsage: "2.5.29.37", timeStamping: "1.3.6.1.5.5.7.3.8",
  crlReason: "2.5.29.21", deltaCrl: "2.5.29.27", crlScope: "2.5.29.28",
};
// Extensions whose meaning is applied, or known not to matter (certificate signing is what cA says).
const UNDERSTOOD = ["keyUsage", "altName", "basicConstraints", "nameConstraints", "distribution", "extendedKeyUsage"].map((name) => OIDS[name]);

// Dotted decimal from the content of an OBJECT IDENTIFIER.
function oidText(content) {
  const arcs = [];
  let arc = 0n;
  for (const byte of content) {
    arc = (arc << 7n) | BigInt(byte & 0x7f);
    if (byte < 0x80) {
      arcs.push(arc);
      arc = 0n;
    }
  }
  const first = arcs[0] < 80n ? arcs[0] / 40n : 2n;
  return [first, arcs[0] - 40n * first, ...arcs.slice(1)].join(".");
}

// Whether a text is dotted decimal of an object identifier, each arc below 2^64.
function isOidText(text) {
  const arcs = text.split(".");
  if (arcs.length < 2 || !arcs.every((arc) => /^(0|[1-9][0-9]{0,19})$/.test(arc) && BigInt(arc) < 1n << 64n)) return false;
  const [first, second] = arcs.map(BigInt);
  return first <= 2n && (first === 2n || second <= 39n) && first * 40n + second < 1n << 64n;
}

// AlgorithmIdentifier: the object identifier, and the element after it, whole.
function readAlgorithm(der) {
  const { content, raw } = der.take(SEQUENCE);
  const inside = new Der(content);
  const oid = oidText(inside.take(OID).content);
  const parameters = inside.empty ? null : inside.any().raw;
  inside.end();
  return { oid, parameters, raw };
}

const isNull = (parameters) => parameters !== null && same(parameters, Uint8Array.of(NULL, 0));
const isPlain = ({ parameters }) => parameters === null || isNull(parameters);

function hashOf(algorithm) {
  const name = { [OIDS.sha256]: "SHA-256", [OIDS.sha384]: "SHA-384", [OIDS.sha512]: "SHA-512" }[algorithm.oid];
  return name && isPlain(algorithm) ? name : null;
}

// RFC 4055, 3.1: hash, mask by the same hash, salt as long as the hash. Returns the hash.
function pssHash(parameters) {
  const inside = Der.whole(parameters, SEQUENCE);
  const [hash, mask, salt] = [0xa0, 0xa1, 0xa2].map((tag) => inside.enter(tag));
  inside.end();
  const name = hashOf(readAlgorithm(hash));
  const generator = readAlgorithm(mask);
  demand(name && generator.oid === OIDS.mgf1 && generator.parameters !== null, "PSS with another mask");
  const inner = new Der(generator.parameters);
  demand(hashOf(readAlgorithm(inner)) === name, "PSS with another hash in its mask");
  demand(natural(salt.take(INTEGER).content) === { "SHA-256": 32n, "SHA-384": 48n, "SHA-512": 64n }[name], "PSS with another salt");
  for (const reader of [hash, mask, salt, inner]) reader.end();
  return name;
}

// `YYYYMMDDhhmmss` of digits as Unix seconds.
function unixSeconds(digits) {
  demand(/^[0-9]{14}$/.test(digits), "a time of another form");
  const [year, month, day, hour, minute, second] =
    [[0, 4], [4, 6], [6, 8], [8, 10], [10, 12], [12, 14]].map(([from, to]) => Number(digits.slice(from, to)));
  const millis = Date.UTC(year, month - 1, day, hour, minute, second);
  const date = new Date(millis);
  const stands = date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day &&
    hour < 24 && minute < 60 && second < 60 && year >= 1970;
  demand(stands, "a time that does not exist, or before 1970");
  return BigInt(millis / 1000);
}

function ascii(bytes) {
  return String.fromCharCode(...bytes);
}

// A time of a certificate's validity, as Unix seconds. What begins before 1970 has begun.
function validityTime({ tag, content }) {
  const digits = ascii(content.subarray(0, 32));
  demand(digits.endsWith("Z"), "a validity that is not in UTC");
  if (tag === 0x17 && content.length === 13) {
    const year = Number(digits.slice(0, 2));
    demand(Number.isInteger(year), "a time of another form");
    if (year >= 50 && year < 70) return 0n;
    return unixSeconds((year >= 50 ? "19" : "20") + digits.slice(0, -1));
  }
  demand(tag === 0x18 && content.length === 15, "a validity of another form");
  return unixSeconds(digits.slice(0, -1));
}

function readExtensions(list) {
  return list.all(64).map(({ tag, content }) => {
    demand(tag === SEQUENCE, "an extension of another form");
    const inside = new Der(content);
    const oid = oidText(inside.take(OID).content);
    const critical = inside.takeIf(BOOLEAN)?.content[0] === 0xff;
    const value = inside.take(OCTETS).content;
    inside.end();
    return { oid, critical, value };
  });
}

// The numbers of the bits that are set in a BIT STRING of flags.
function flags([unused, ...bytes]) {
  const last = bytes[bytes.length - 1];
  const fine = last === undefined ? unused === 0 : unused < 8 && (last & ((1 << unused) - 1)) === 0;
  demand(fine, "flags of another form");
  return bytes.flatMap((byte, at) => [0, 1, 2, 3, 4, 5, 6, 7].filter((n) => byte & (0x80 >> n)).map((n) => 8 * at + n));
}

function bitString(element) {
  demand(element.content.length > 0 && element.content[0] === 0, "a BIT STRING with unused bits");
  return element.content.subarray(1);
}

// A certificate of version 3, taken apart. What only matters on a path is read when a path is tried.
class Certificate {
  constructor(bytes) {
    this.bytes = bytes;
    const outer = Der.whole(bytes, SEQUENCE);
    const tbs = outer.take(SEQUENCE);
    this.tbs = tbs.raw;
    this.algorithm = readAlgorithm(outer);
    this.signature = bitString(outer.take(BITS));
    outer.end();
    const inside = new Der(tbs.content);
    const version = inside.enter(0xa0);
    demand(natural(version.take(INTEGER).content) === 2n, "a certificate of another version than 3");
    version.end();
    this.serial = inside.take(INTEGER).content;
    demand(same(readAlgorithm(inside).raw, this.algorithm.raw), "a certificate that names two signature algorithms");
    this.issuer = inside.take(SEQUENCE).raw;
    this.validityDer = inside.take(SEQUENCE).content;
    this.subject = inside.take(SEQUENCE).raw;
    this.keyInfo = inside.take(SEQUENCE);
    this.extensions = [];
    if (!inside.empty) {
      const list = inside.enter(0xa3);
      this.extensions = list.empty ? [] : readExtensions(list.enter(SEQUENCE));
      list.end();
    }
    inside.end();
    for (const { oid, value } of this.extensions) {
      if (oid === OIDS.keyUsage || !UNDERSTOOD.includes(oid)) continue;
      Der.whole(value, SEQUENCE);
    }
    const names = this.extensions.map(({ oid }) => oid);
    demand(new Set(names).size === names.length, "an extension that comes twice");
    // Made for readers that know more than this one.
    this.strange = this.extensions.some(({ oid, critical }) => critical && !UNDERSTOOD.includes(oid));
  }
  extension(name) {
    return this.extensions.find(({ oid }) => oid === OIDS[name]);
  }
  // Unix seconds.
  validity() {
    const times = new Der(this.validityDer);
    const [notBefore, notAfter] = [times.any(), times.any()].map(validityTime);
    times.end();
    return { notBefore, notAfter };
  }
  key() {
    const inside = new Der(this.keyInfo.content);
    const algorithm = readAlgorithm(inside);
    const bytes = bitString(inside.take(BITS));
    inside.end();
    return { algorithm, bytes };
  }
  basicConstraints() {
    const basic = this.extension("basicConstraints");
    if (!basic) return { isCa: false, pathLength: null };
    const reader = Der.whole(basic.value, SEQUENCE);
    const isCa = reader.takeIf(BOOLEAN)?.content[0] === 0xff;
    const length = reader.takeIf(INTEGER);
    reader.end();
    return { isCa, pathLength: length && natural(length.content) };
  }
  // The purposes it is for; null where it states none.
  purposes() {
    const purposes = this.extension("extendedKeyUsage");
    if (!purposes) return null;
    return Der.whole(purposes.value, SEQUENCE).all(64).map(({ tag, content }) => {
      demand(tag === OID && isOid(content), "a purpose that is no object identifier");
      return oidText(content);
    });
  }
  // The numbers of what its key is for; null where it does not say.
  keyUsage() {
    const usage = this.extension("keyUsage");
    if (!usage) return null;
    const reader = new Der(usage.value);
    const { content } = reader.take(BITS);
    reader.end();
    return flags(content);
  }
  altNames() {
    const names = this.extension("altName");
    return names ? Der.whole(names.value, SEQUENCE).all(64) : [];
  }
  // The kinds of names that it constrains below it.
  constrained() {
    const constraints = this.extension("nameConstraints");
    if (!constraints) return [];
    const reader = Der.whole(constraints.value, SEQUENCE);
    const subtrees = [0xa0, 0xa1].flatMap((tag) => reader.takeIf(tag) ?? []).flatMap(({ content }) => new Der(content).all(1024));
    reader.end();
    return subtrees.map(({ tag, content }) => {
      demand(tag === SEQUENCE, "a name constraint of another form");
      const base = new Der(content);
      const kind = base.any().tag;
      base.end();
      return kind;
    });
  }
}

// The issuer that a certificate names, whatever else there is to say against it.
function namedIssuer(bytes) {
  const outer = Der.whole(bytes, SEQUENCE);
  const inside = outer.enter(SEQUENCE);
  readAlgorithm(outer);
  outer.take(BITS);
  outer.end();
  const version = inside.enter(0xa0);
  demand(natural(version.take(INTEGER).content) === 2n, "a certificate of another version than 3");
  version.end();
  inside.take(INTEGER);
  readAlgorithm(inside);
  const issuer = inside.take(SEQUENCE).raw;
  const times = inside.enter(SEQUENCE);
  for (const time of [times.any(), times.any()]) validityTime(time);
  times.end();
  for (const tag of [SEQUENCE, SEQUENCE]) inside.take(tag);
  for (const tag of [0x81, 0x82]) inside.takeIf(tag);
  const list = inside.takeIf(0xa3);
  inside.end();
  const names = list ? readExtensions(Der.whole(list.content, SEQUENCE)).map(({ oid }) => oid) : [];
  demand(new Set(names).size === names.length, "an extension that comes twice");
  return issuer;
}

// The signer's own certificate: no CA, for time stamps alone, its key for signatures alone.
function demandStampPurpose(certificate) {
  demand(!certificate.basicConstraints().isCa, "the signer is a CA");
  const purposes = certificate.purposes();
  demand(purposes !== null, "the signer's certificate states no purpose");
  demand(purposes.length === 1 && purposes[0] === OIDS.timeStamping, "the signer's certificate is not for time stamps alone");
  demand(certificate.extension("extendedKeyUsage").critical, "the purpose of the signer's certificate is not critical");
  const usage = certificate.keyUsage();
  demand(usage === null || (usage.length > 0 && usage.every((n) => n <= 1)), "the signer's key is for more than signatures");
}

// What a key is, from its AlgorithmIdentifier: one spelling each.
function keyKind({ oid, parameters }) {
  if (oid === OIDS.rsa && isNull(parameters)) return "RSA";
  if (oid !== OIDS.ecKey || parameters === null || parameters[0] !== OID) return null;
  return { [OIDS.p256]: "P-256", [OIDS.p384]: "P-384" }[oidText(parameters.subarray(2))] ?? null;
}

// Verifies with a key: `scheme` is { kind: "EC" | "RSA", padding, hash }. A key of another kind is refused.
async function verifyWithKey({ algorithm, bytes: publicKey }, { kind, padding, hash }, message, signature) {
  const found = keyKind(algorithm);
  demand(found !== null && (kind === "RSA") === (found === "RSA"), "a key that is not of its signature's kind");
  try {
    if (found === "RSA") {
      const key = Der.whole(publicKey, SEQUENCE);
      const [modulus, exponent] = [key.take(INTEGER).content, key.take(INTEGER).content];
      key.end();
      natural(modulus);
      natural(exponent);
      return await rsaVerify(modulus, exponent, padding, hash, message, signature);
    }
    const size = CURVES[found].bytes;
    const numbers = Der.whole(signature, SEQUENCE);
    const fixed = [numbers.take(INTEGER), numbers.take(INTEGER)].map(({ content }) => {
      const number = natural(content);
      demand(number < 1n << BigInt(8 * size), "a number that is too large");
      return fromHex(number.toString(16).padStart(2 * size, "0"), size);
    });
    numbers.end();
    return await ecVerify(found, publicKey, hash, message, concat(...fixed));
  } catch (error) {
    if (error instanceof Refused) return false;
    throw error;
  }
}

// Between certificates: ECDSA without parameters, RSA with NULL, PSS in full.
function certificateScheme({ oid, parameters }) {
  const rsa = { [OIDS.rsaSha256]: "SHA-256", [OIDS.rsaSha384]: "SHA-384", [OIDS.rsaSha512]: "SHA-512" }[oid];
  if (rsa && isNull(parameters)) return { kind: "RSA", padding: "pkcs1", hash: rsa };
  const ec = { [OIDS.ecdsaSha256]: "SHA-256", [OIDS.ecdsaSha384]: "SHA-384" }[oid];
  if (ec && parameters === null) return { kind: "EC", hash: ec };
  if (oid === OIDS.pss && parameters !== null) return { kind: "RSA", padding: "pss", hash: pssHash(parameters) };
  return null;
}

// Ways to fail, the more particular ones higher. No path at all, or a CA of the right name with another key, means that
// nobody we know stands behind the signer; everything above that is a fault of the path itself.
const NO_PATH = 0, OTHER_KEY = 260;
const FAULT = { time: 290, purpose: 240, names: 230, length: 220, role: 210, algorithm: 150, strange: 130, depth: 61, malformed: 40 };

// Looks for a path from the signer to one of the roots, valid at `second`. Returns it, from the root to the signer, or the
// fault that speaks most against there being one.
async function findPath(signer, others, roots, second) {
  // What cannot be read is a fault of that kind.
  const orFault = async (fault, run) => {
    try {
      return await run();
    } catch (error) {
      if (error instanceof Refused) return fault;
      throw error;
    }
  };
  const parsed = [];
  for (const bytes of others) parsed.push(await orFault(null, () => new Certificate(bytes)));
  let calls = 0, found = null;

  const signedBy = (certificate, issuer) => orFault(FAULT.algorithm, async () => {
    const scheme = certificateScheme(certificate.algorithm);
    demand(scheme !== null, "an algorithm that is not accepted");
    const holds = await verifyWithKey(issuer.key(), scheme, certificate.tbs, certificate.signature);
    return holds ? null : OTHER_KEY;
  });
  // Constraints on directory names, and on kinds of names that stand below, are refused rather than judged.
  const namesAllowed = (issuers, path) => orFault(FAULT.malformed, () => {
    for (const [n, issuer] of issuers.entries()) {
      const kinds = issuer.constrained();
      const below = path.slice(n).flatMap((one) => one.altNames()).map(({ tag }) => tag);
      if (n < path.length && (kinds.includes(0xa4) || below.some((tag) => kinds.includes(tag)))) return FAULT.names;
    }
    return null;
  });
  const underRoot = async (path, root) => {
    if (!same(path[0].issuer, root.subject)) return NO_PATH;
    const issuers = [root, ...path];
    for (const [n, certificate] of path.entries()) {
      const fault = await signedBy(certificate, issuers[n]);
      if (fault !== null) return fault;
    }
    return namesAllowed(issuers, path);
  };
  const own = (certificate, depth) => orFault(FAULT.malformed, () => {
    const { notBefore, notAfter } = certificate.validity();
    demand(notBefore <= notAfter, "a certificate that ends before it begins");
    if (second < notBefore || second > notAfter) return FAULT.time;
    const { isCa, pathLength } = certificate.basicConstraints();
    if (isCa === (depth === 0)) return FAULT.role;
    if (depth > 0 && pathLength !== null && BigInt(depth - 1) > pathLength) return FAULT.length;
    const purposes = certificate.purposes();
    return purposes !== null && !purposes.includes(OIDS.timeStamping) ? FAULT.purpose : null;
  });
  // `path` begins with the certificate whose issuer is looked for, and ends with the signer's.
  const extend = async (path) => {
    const [head] = path;
    const fault = await own(head, path.length - 1);
    if (fault !== null) return fault;
    let worst = NO_PATH;
    for (const root of roots) {
      const fault = await underRoot(path, root);
      if (fault === null) {
        found = [root, ...path];
        return null;
      }
      worst = Math.max(worst, fault);
    }
    for (const issuer of parsed) {
      let fault = NO_PATH;
      if (issuer === null) fault = FAULT.malformed;
      else if (issuer.strange) fault = FAULT.strange;
      else if (same(issuer.subject, head.issuer) &&
        !path.some((one) => same(one.keyInfo.raw, issuer.keyInfo.raw) && same(one.subject, issuer.subject))) {
        demand(++calls <= 100, "more paths than are tried");
        fault = path.length > 6 ? FAULT.depth : await extend([issuer, ...path]);
        if (fault === null) return null;
      }
      worst = Math.max(worst, fault);
    }
    return worst;
  };
  const fault = signer.strange ? FAULT.strange : await extend([signer]);
  return { fault, path: found };
}
