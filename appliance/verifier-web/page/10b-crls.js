// Whether the certificates behind a stamp were revoked, by the CRLs that a seal carries (section 18, RFC 5280, 5): read
// to the last entry, verified by the certificate above, and taken for no more than they say.

const REASONS = ["unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
  "certificateHold", null, "removeFromCRL", "privilegeWithdrawn", "aACompromise"];
// RFC 3161, 4: what was stamped before stays what it is.
const HARMLESS = ["unspecified", "affiliationChanged", "superseded", "cessationOfOperation"];

// A list of revocations, well-formed; what it says counts when `verifies` says so. Times are in microseconds.
class Crl {
  constructor(bytes) {
    const outer = Der.whole(bytes, SEQUENCE);
    const list = outer.take(SEQUENCE);
    this.signed = list.raw;
    this.algorithm = readAlgorithm(outer);
    this.signature = bitString(outer.take(BITS));
    outer.end();
    const inside = new Der(list.content);
    demand(natural(inside.take(INTEGER).content) === 1n, "a CRL of another version than 2");
    demand(same(readAlgorithm(inside).raw, this.algorithm.raw), "a CRL that names two signature algorithms");
    this.issuer = inside.take(SEQUENCE).raw;
    [this.thisUpdate, this.nextUpdate] = [inside.any(), inside.any()].map((time) => validityTime(time) * SECOND);
    demand(this.thisUpdate <= this.nextUpdate, "a CRL whose next one comes before it");
    this.entries = [];
    const entries = new Der(inside.takeIf(SEQUENCE)?.content ?? new Uint8Array());
    while (!entries.empty) this.entries.push(readRevoked(entries.enter(SEQUENCE)));
    const extensions = inside.takeIf(0xa0);
    inside.end();
    this.scope = readScope(extensions ? readExtensions(Der.whole(extensions.content, SEQUENCE)) : []);
    this.verified = new Map();
  }
  // Whether this certificate is its issuer's, and its key has signed it.
  async verifies(issuer) {
    const name = hex(issuer.bytes);
    if (!this.verified.has(name)) {
      this.verified.set(name, await orNull(async () => {
        const usage = issuer.keyUsage();
        demand(same(issuer.subject, this.issuer) && !issuer.strange, "a CRL of another issuer");
        demand(usage === null || usage.includes(6), "a CA that is not for CRLs");
        const scheme = crlScheme(this.algorithm);
        demand(scheme !== null, "a signature algorithm that is not accepted");
        return verifyWithKey(issuer.key(), scheme, this.signed, this.signature);
      }) === true);
    }
    return this.verified.get(name);
  }
  // What it says of a certificate of its issuer, for a stamp of this time; null where it does not speak of it.
  speaksOf(certificate, { earliest, latest }) {
    const { isCa } = certificate.basicConstraints();
    if (isCa ? this.scope.usersOnly : this.scope.casOnly) return null;
    const { names } = this.scope;
    if (names !== null && !publishedUnder(certificate).some((name) => names.some((other) => same(name, other)))) return null;
    const entry = this.entries.find(({ serial }) => same(serial, certificate.serial));
    if (entry) {
      const doubtful = !HARMLESS.includes(entry.reason) || latest >= entry.at;
      return { revoked: { say: doubtful ? "doubtful" : "later", reason: entry.reason, at: entry.at } };
    }
    // That it is not revoked is worth something in its own time, and while the certificate would still be named.
    const inTime = this.nextUpdate >= earliest && this.thisUpdate <= certificate.validity().notAfter * SECOND;
    return inTime ? { revoked: null } : null;
  }
}

async function orNull(run) {
  try {
    return await run();
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

function readRevoked(entry) {
  const serial = entry.take(INTEGER).content;
  demand(serial.length <= 32, "a serial number of more than 32 bytes");
  const at = validityTime(entry.any()) * SECOND;
  const extensions = entry.takeIf(SEQUENCE);
  entry.end();
  let reason = null;
  for (const { oid, critical, value } of extensions ? readExtensions(new Der(extensions.content)) : []) {
    if (oid === OIDS.crlReason) {
      const reader = new Der(value);
      const { content } = reader.take(ENUMERATED);
      reader.end();
      demand(reason === null && content.length === 1 && REASONS[content[0]], "a reason that comes twice, or is none");
      reason = REASONS[content[0]];
    } else {
      demand(!critical, "a critical extension that is not known");
    }
  }
  return { serial, at, reason };
}

// Which of the issuer's certificates it is for: all, unless it says otherwise.
function readScope(extensions) {
  let scope = null;
  for (const { oid, critical, value } of extensions) {
    demand(oid !== OIDS.deltaCrl, "a CRL that holds only changes");
    if (oid === OIDS.crlScope) {
      demand(scope === null, "an extension that comes twice");
      scope = readDistributionPoint(value);
    } else {
      demand(!critical, "a critical extension that is not known");
    }
  }
  return scope ?? { names: null, usersOnly: false, casOnly: false };
}

function readDistributionPoint(value) {
  const point = Der.whole(value, SEQUENCE);
  const name = point.takeIf(0xa0);
  const flag = (tag) => {
    const element = point.takeIf(tag);
    if (element === null) return false;
    const { content } = element;
    demand(content.length === 1 && (content[0] === 0 || content[0] === 0xff), "a BOOLEAN of another value");
    return content[0] === 0xff;
  };
  const usersOnly = flag(0x81), casOnly = flag(0x82);
  demand(point.takeIf(0x83) === null, "a CRL for some reasons only");
  demand(!flag(0x84) && !flag(0x85), "a CRL of other issuers, or for attributes");
  point.end();
  return { names: name && pointNames(name.content), usersOnly, casOnly };
}

// The full names of a DistributionPointName; one that is relative to the issuer's has none.
function pointNames(content) {
  const reader = new Der(content);
  const { tag, content: names } = reader.any();
  reader.end();
  demand(tag === 0xa0 || tag === 0xa1, "a distribution point of another form");
  return tag === 0xa0 ? new Der(names).all(16).map(({ raw }) => raw) : [];
}

// Where a certificate says that its issuer publishes its CRL: points for every reason, and of no other issuer.
function publishedUnder(certificate) {
  const points = certificate.extension("distribution");
  if (!points) return [];
  return Der.whole(points.value, SEQUENCE).all(16).flatMap(({ raw }) => {
    const point = Der.whole(raw, SEQUENCE);
    const name = point.takeIf(0xa0);
    const partial = [0x81, 0xa2].map((tag) => point.takeIf(tag)).some((part) => part !== null);
    point.end();
    return name === null || partial ? [] : pointNames(name.content);
  });
}

// Over a CRL as over a stamp, but that the algorithm itself names the hash.
function crlScheme(algorithm) {
  if (algorithm.oid === OIDS.rsa) return null;
  for (const hash of ["SHA-256", "SHA-384", "SHA-512"]) {
    const scheme = signerScheme({ algorithm, hash });
    if (scheme !== null) return scheme;
  }
  return null;
}

// Whether a reply carries a certificate that names this CRL's issuer as its own. Nothing of it is verified.
async function carriesIssuerOf(crl, reply) {
  const certificates = await orNull(() => readSignedData(readReply(reply)).certificates) ?? [];
  for (const bytes of certificates) {
    const issuer = await orNull(() => namedIssuer(bytes));
    if (issuer !== null && same(issuer, crl.issuer)) return true;
  }
  return false;
}

// Whether a CRL is of an issuer behind a stamp that holds. Refused is one that is so by its name alone, and one that belongs
// to no stamp of the file.
async function isOfKnown(crl, held, replies) {
  let named = false;
  for (const { certificate, issuer } of held.flatMap(({ vouched }) => vouched)) {
    if (!same(certificate.issuer, crl.issuer)) continue;
    if (await crl.verifies(issuer)) return true;
    named = true;
  }
  demand(!named, "a CRL that its issuer has not signed, or may not sign");
  for (const reply of replies) {
    if (await carriesIssuerOf(crl, reply)) return false;
  }
  throw new Refused("a CRL that belongs to no time stamp of the file");
}

// How the certificates behind a stamp stood: what weighs most is said, and of what weighs alike the first.
async function standing({ authority, vouched, ...time }, crls) {
  const found = { doubtful: null, later: null, unknown: null };
  let asOf = null;
  for (const { certificate, issuer } of vouched) {
    const subject = certificate.subject;
    let newest = null;
    for (const crl of crls) {
      if (!same(certificate.issuer, crl.issuer) || !(await crl.verifies(issuer))) continue;
      const word = await orNull(() => crl.speaksOf(certificate, time));
      if (word === null) continue;
      if (word.revoked) found[word.revoked.say] ??= { authority, subject, ...word.revoked };
      if (newest === null || crl.thisUpdate > newest) newest = crl.thisUpdate;
    }
    if (newest === null) found.unknown ??= { say: "unknown", authority, subject };
    else if (asOf === null || newest < asOf) asOf = newest;
  }
  return found.doubtful ?? found.later ?? found.unknown ?? { say: "good", authority, asOf };
}

// A name for people: its parts, the last first, without characters that could deceive.
function nameText(name) {
  const parts = Der.whole(name, SEQUENCE).all(32).flatMap(({ tag, content }) => {
    demand(tag === SET, "a name of another form");
    return new Der(content).all(8).map(({ content: pair }) => {
      const inside = new Der(pair);
      inside.take(OID);
      const value = inside.any();
      inside.end();
      return value.tag === UTF8 ? new TextDecoder().decode(value.content) : ascii(value.content);
    });
  });
  return parts.reverse().join(", ").slice(0, 240).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "\ufffd");
}
