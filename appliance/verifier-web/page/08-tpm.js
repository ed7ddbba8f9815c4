// TPM structures (section 7), and what holds of them.

const SHA256_ALG = 0x000b, ECDSA_ALG = 0x0018, NO_ALG = 0x0010;

function tpmName(fields) {
  const name = fields.sized();
  demand(name.length === 34 && name[0] === 0x00 && name[1] === 0x0b, "a TPM name that is not of SHA-256");
  return name;
}

function parseAttest(bytes) {
  const fields = new Fields(bytes);
  demand(fields.number(4) === 0xff544347n, "not made by a TPM");
  const type = fields.u16();
  tpmName(fields);
  const extraData = fields.sized();
  const attest = { extraData, clock: fields.number(8), resets: fields.number(4), restarts: fields.number(4) };
  const safe = fields.number(1);
  demand(safe <= 1n, "a flag that is neither 0 nor 1");
  fields.take(8);
  if (type === 0x8018) {
    attest.type = "quote";
    demand(fields.number(4) === 1n && fields.u16() === SHA256_ALG && fields.number(1) === 3n, "a PCR selection of another form");
    const bits = fields.take(3);
    attest.pcrs = Array.from({ length: 24 }, (_, n) => n).filter((n) => (bits[n >> 3] >> (n & 7)) & 1);
    demand(attest.pcrs.length > 0, "a quote of no PCR");
    attest.digest = fields.sized();
    demand(attest.digest.length === 32, "a PCR digest of another length");
  } else if (type === 0x8017) {
    attest.type = "certify";
    attest.name = tpmName(fields);
    tpmName(fields);
  } else {
    throw new Refused("an attestation of another type");
  }
  fields.end();
  return attest;
}

const padded = (number) => concat(new Uint8Array(32 - number.length), number);

function coordinate(fields) {
  const number = fields.sized();
  demand(number.length >= 1 && number.length <= 32, "a number of no byte, or of more than 32");
  return padded(number);
}

// r || s
function parseTpmSignature(bytes) {
  const fields = new Fields(bytes);
  demand(fields.u16() === ECDSA_ALG && fields.u16() === SHA256_ALG, "a signature that is not ECDSA with SHA-256");
  const signature = concat(coordinate(fields), coordinate(fields));
  fields.end();
  return signature;
}

function parsePublicArea(bytes) {
  const fields = new Fields(bytes);
  demand(fields.u16() === 0x0023 && fields.u16() === SHA256_ALG, "not an elliptic curve key named by SHA-256");
  const attributes = Number(fields.number(4));
  demand((attributes & ~0x000f0ff6) === 0, "a reserved attribute is set");
  const policy = fields.sized();
  demand(policy.length === 0 || policy.length === 32, "a policy of another length");
  demand(fields.u16() === NO_ALG, "a key with a symmetric cipher");
  const scheme = fields.u16();
  demand(scheme === ECDSA_ALG || scheme === NO_ALG, "a key of another scheme");
  const schemeHash = scheme === ECDSA_ALG ? fields.u16() : null;
  demand(fields.u16() === 0x0003 && fields.u16() === NO_ALG, "a key on another curve, or with a key derivation");
  const point = concat(Uint8Array.of(4), coordinate(fields), coordinate(fields));
  fields.end();
  demand(isCurvePoint("P-256", point), "a point that is not on the curve");
  return { attributes, scheme, schemeHash, point, name: concat(Uint8Array.of(0x00, 0x0b), sha256(bytes)) };
}

const bit = (n) => 1 << n;
const SIGNS_IN_ITS_TPM = bit(18) | bit(1) | bit(4) | bit(5) | bit(10);
const NEVER = bit(17) | bit(2) | bit(19);
const RESTRICTED = bit(16);

function demandSigningKey(area, restricted) {
  const { attributes, scheme, schemeHash } = area;
  demand((attributes & SIGNS_IN_ITS_TPM) === SIGNS_IN_ITS_TPM && (attributes & NEVER) === 0, "a key that may leave its TPM, or do more than sign");
  demand(((attributes & RESTRICTED) !== 0) === restricted, restricted ? "a key that signs whatever it is given" : "a restricted key");
  const plain = scheme === ECDSA_ALG && schemeHash === SHA256_ALG;
  demand(plain || (!restricted && scheme === NO_ALG), "a key of another scheme");
}

async function verifyAttest(type, attest, signature, key, qualifying) {
  const parsed = parseAttest(attest);
  demand(parsed.type === type, "an attestation of another type");
  demand(await ecVerify("P-256", key, "SHA-256", attest, parseTpmSignature(signature)), "the attestation key has not signed it");
  demand(same(parsed.extraData, qualifying), "it is over something else");
  return parsed;
}

// A quote with the PCR values given beside it.
async function verifyQuote({ attest, signature }, pcrs, key, qualifying) {
  const parsed = await verifyAttest("quote", attest, signature, key, qualifying);
  const listed = pcrs.map(({ pcr }) => Number(pcr));
  demand(listed.length === parsed.pcrs.length && listed.every((pcr, n) => pcr === parsed.pcrs[n]), "other PCRs than were quoted");
  demand(same(sha256(...pcrs.map(({ value }) => value)), parsed.digest), "PCR values that are not the quoted ones");
  return parsed;
}
