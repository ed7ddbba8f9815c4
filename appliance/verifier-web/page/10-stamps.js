// Time-stamp tokens (section 18): RFC 3161 replies, judged by pinned roots. `NotJudged` is for what proves nothing to
// whoever holds this trust file; every other fault refuses the anchor it stands in.

class NotJudged extends Error {}

const SECOND = 1000000n;

// Microseconds since 1970, rounded down, and whether anything was rounded away.
function stampTime(content) {
  const found = /^([0-9]{14})(?:\.([0-9]{0,8}[1-9]))?Z$/.exec(ascii(content.subarray(0, 32)));
  demand(found !== null && content.length <= 32, "a time that is not UTC in its one spelling");
  const nanos = BigInt((found[2] ?? "").padEnd(9, "0"));
  return { micros: unixSeconds(found[1]) * SECOND + nanos / 1000n, rounded: nanos % 1000n > 0n };
}

function stampAccuracy({ content }) {
  const inside = new Der(content);
  const part = (tag) => {
    const element = inside.takeIf(tag);
    if (element === null) return 0n;
    const number = natural(element.content);
    demand(number >= 1n && number <= 999n, "an accuracy that is out of range");
    return number;
  };
  const whole = inside.takeIf(INTEGER);
  const seconds = whole === null ? 0n : natural(whole.content);
  demand(seconds <= 86400n, "an accuracy of more than a day");
  const accuracy = seconds * SECOND + part(0x80) * 1000n + part(0x81);
  inside.end();
  return accuracy;
}

function readTstInfo(bytes) {
  const info = Der.whole(bytes, SEQUENCE);
  demand(natural(info.take(INTEGER).content) === 1n, "a stamp of another version");
  const policy = oidText(info.take(OID).content);
  const message = info.enter(SEQUENCE);
  demand(hashOf(readAlgorithm(message)) === "SHA-256", "a stamp over another kind of hash");
  const imprint = message.take(OCTETS).content;
  message.end();
  demand(imprint.length === 32, "a stamp over another kind of hash");
  const serial = info.take(INTEGER).content;
  natural(serial);
  demand(serial.length <= 21, "a serial number of more than 160 bits");
  const { micros, rounded } = stampTime(info.take(0x18).content);
  const accuracy = info.takeIf(SEQUENCE);
  info.takeIf(BOOLEAN);
  info.takeIf(INTEGER);
  const name = info.takeIf(0xa0);
  const extensions = info.takeIf(0xa1);
  if (extensions) demand(readExtensions(new Der(extensions.content)).every(({ critical }) => !critical), "a critical extension");
  info.end();
  const around = accuracy === null ? SECOND : stampAccuracy(accuracy);
  return {
    policy, imprint, micros, name: name && name.content,
    earliest: micros > around ? micros - around : 0n,
    latest: micros + around + (rounded ? 1n : 0n),
  };
}

// The ContentInfo of a reply that grants a stamp.
function readReply(bytes) {
  demand(bytes.length <= 65536, "a reply of more than 65,536 bytes");
  const reply = Der.whole(bytes, SEQUENCE);
  const info = reply.enter(SEQUENCE);
  const stamp = reply.takeIf(SEQUENCE);
  reply.end();
  const status = natural(info.take(INTEGER).content);
  const texts = info.takeIf(SEQUENCE);
  for (const { tag } of texts ? new Der(texts.content).all(64) : []) demand(tag === UTF8, "a status text of another kind");
  const failure = info.takeIf(BITS);
  if (failure) flags(failure.content);
  info.end();
  demand(status <= 1n && stamp !== null, "the authority has granted no stamp");
  return stamp.raw;
}

function readSignedData(bytes) {
  const info = Der.whole(bytes, SEQUENCE);
  demand(oidText(info.take(OID).content) === OIDS.signedData, "no CMS SignedData");
  const outer = info.enter(0xa0);
  info.end();
  const data = outer.enter(SEQUENCE);
  outer.end();
  const version = natural(data.take(INTEGER).content);
  const digests = data.enter(SET).all(32);
  const encapsulated = data.enter(SEQUENCE);
  demand(oidText(encapsulated.take(OID).content) === OIDS.tstInfo && version === 3n, "not a time stamp");
  const explicit = encapsulated.enter(0xa0);
  const content = explicit.take(OCTETS).content;
  explicit.end();
  encapsulated.end();
  const certificates = data.takeIf(0xa0);
  const listed = certificates ? new Der(certificates.content).all(32) : [];
  demand(listed.every(({ tag }) => tag === SEQUENCE), "certificates of another kind");
  data.takeIf(0xa1);
  const signers = data.enter(SET).all(32);
  data.end();
  demand(signers.length === 1, "not exactly one signer");
  const signer = Der.whole(signers[0].raw, SEQUENCE);
  const signerVersion = natural(signer.take(INTEGER).content);
  const identifier = signer.takeIf(0x80);
  let named = null;
  if (identifier === null) {
    const both = signer.enter(SEQUENCE);
    named = { issuer: both.take(SEQUENCE).raw, serial: both.take(INTEGER).content };
    both.end();
  }
  demand(signerVersion === (named ? 1n : 3n), "a signer of another version");
  const hash = hashOf(readAlgorithm(signer));
  const list = signer.takeIf(0xa0);
  const algorithm = readAlgorithm(signer);
  const signature = signer.take(OCTETS).content;
  signer.takeIf(0xa1);
  signer.end();
  demand(list !== null && hash !== null, "no signed attributes, or a hash that is not accepted");
  demand(digests.some(({ tag, raw }) => tag === SEQUENCE && hashOf(readAlgorithm(new Der(raw))) === hash), "a hash that was not announced");

  const attributes = new Der(list.content).all(32).map(({ raw }) => {
    const inside = Der.whole(raw, SEQUENCE);
    const oid = oidText(inside.take(OID).content);
    const values = inside.enter(SET).all(32);
    inside.end();
    demand(values.length === 1, "an attribute of more than one value");
    return { oid, value: values[0], raw };
  });
  demand(new Set(attributes.map(({ oid }) => oid)).size === attributes.length, "an attribute that comes twice");
  attributes.sort((a, b) => compare(a.raw, b.raw));
  return {
    content, certificates: listed.map(({ raw }) => raw), named, identifier: identifier && identifier.content, hash, algorithm, signature,
    attribute: (name) => attributes.find(({ oid }) => oid === OIDS[name])?.value,
    signedBytes: derElement(SET, ...attributes.map(({ raw }) => raw)),
  };
}

// The certificate that the signed attributes name by its hash, and that every other name means, too.
async function signerCertificate(signed) {
  const second = signed.attribute("signingCertificateV2");
  const attribute = second ?? signed.attribute("signingCertificate");
  demand(attribute !== undefined, "the signer's certificate is not named");
  const outer = Der.whole(attribute.raw, SEQUENCE);
  const first = outer.enter(SEQUENCE).enter(SEQUENCE);
  outer.takeIf(SEQUENCE);
  outer.end();
  let hash = second ? "SHA-256" : "SHA-1";
  if (second && first.tag === SEQUENCE) hash = hashOf(readAlgorithm(first));
  demand(hash !== null, "a hash that is not accepted");
  const digest = first.take(OCTETS).content;
  const also = first.takeIf(SEQUENCE);
  first.end();
  let certificate = null;
  for (const bytes of signed.certificates) {
    if (same(await webHash(hash, bytes), digest)) {
      certificate = new Certificate(bytes);
      break;
    }
  }
  demand(certificate !== null, "the signer's certificate is not in the stamp");
  const is = ({ issuer, serial }) => same(issuer, certificate.issuer) && same(serial, certificate.serial);
  if (signed.named) {
    demand(is(signed.named), "two names of the signer's certificate that do not agree");
  } else {
    const extension = certificate.extension("keyIdentifier");
    demand(extension !== undefined, "two names of the signer's certificate that do not agree");
    const reader = new Der(extension.value);
    const { content } = reader.take(OCTETS);
    reader.end();
    demand(same(content, signed.identifier), "two names of the signer's certificate that do not agree");
  }
  if (also) {
    const inside = new Der(also.content);
    const names = inside.enter(SEQUENCE);
    const issuer = names.take(0xa4).content;
    names.end();
    const serial = inside.take(INTEGER).content;
    inside.end();
    demand(is({ issuer, serial }), "two names of the signer's certificate that do not agree");
  }
  return certificate;
}

function signerScheme({ algorithm, hash }) {
  const { oid, parameters } = algorithm;
  const rsa = { [OIDS.rsa]: hash, [OIDS.rsaSha256]: "SHA-256", [OIDS.rsaSha384]: "SHA-384", [OIDS.rsaSha512]: "SHA-512" }[oid];
  if (rsa) return rsa === hash && isPlain(algorithm) ? { kind: "RSA", padding: "pkcs1", hash } : null;
  if (oid === OIDS.pss) return parameters !== null && pssHash(parameters) === hash ? { kind: "RSA", padding: "pss", hash } : null;
  const ec = { [OIDS.ecdsaSha256]: "SHA-256", [OIDS.ecdsaSha384]: "SHA-384" }[oid];
  return ec && ec === hash && parameters === null ? { kind: "EC", hash } : null;
}

// Judges a reply over `imprint` by an operator of the trust file: { roots, policies }. Times are in microseconds.
async function verifyStamp(reply, imprint, operator) {
  const signed = readSignedData(readReply(reply));
  const info = readTstInfo(signed.content);
  demand(same(info.imprint, imprint), "a stamp over something else");
  if (operator.policies.length > 0 && !operator.policies.includes(info.policy)) throw new NotJudged("policy");

  const contentType = signed.attribute("contentType"), digest = signed.attribute("messageDigest");
  demand(contentType?.tag === OID && oidText(contentType.content) === OIDS.tstInfo, "a signed attribute that is missing, or of another content");
  demand(digest?.tag === OCTETS && same(digest.content, await webHash(signed.hash, signed.content)), "content that was not signed");
  const signer = await signerCertificate(signed);
  demandStampPurpose(signer);
  if (info.name) {
    const reader = new Der(info.name);
    const { tag, content, raw } = reader.any();
    reader.end();
    const isNamed = (tag === 0xa4 && same(content, signer.subject)) || signer.altNames().some((other) => same(other.raw, raw));
    demand(isNamed, "a name of the authority that is not in its certificate");
  }
  const scheme = signerScheme(signed);
  demand(scheme !== null, "a signature algorithm that is not accepted");
  demand(await verifyWithKey(signer.key(), scheme, signed.signedBytes, signed.signature), "the stamp's signature does not verify");

  const second = info.micros / SECOND;
  const validThen = (certificate) => {
    const { notBefore, notAfter } = certificate.validity();
    return notBefore <= second && second <= notAfter;
  };
  demand(validThen(signer), "the signer's certificate was not valid when it was made");
  const others = signed.certificates.filter((bytes) => !same(bytes, signer.bytes));
  const { fault, path } = await findPath(signer, others, operator.roots.filter(validThen), second);
  if (path === null) {
    const late = operator.roots.filter((root) => !validThen(root));
    demand(late.length === 0 || (await findPath(signer, others, late, second)).path === null, "the root was not valid when it was made");
    if (fault === NO_PATH || fault === OTHER_KEY) throw new NotJudged("untrusted");
    throw new Refused("the certificates between the signer and the root break a rule");
  }
  nameText(signer.subject);
  // The signer first; each with the one that vouches for it.
  const vouched = path.slice(1).map((certificate, n) => ({ certificate, issuer: path[n] })).reverse();
  return { earliest: info.earliest, latest: info.latest, vouched };
}
