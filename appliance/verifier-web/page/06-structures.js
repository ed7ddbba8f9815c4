// What Bulla signs (docs/formats.md sections 2 to 5 and 8): names, entries, the bodies a seal needs, enrolments,
// revocations. Each type takes what the page allows and nothing else.

const EMPTY_ROOT = sha256();

// The part of a name before the box: labels joined by dots.
function isFleet(name) {
  const labels = name.split(".");
  return name.length <= 150 && labels.every((label) => label.length <= 63 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(label));
}

function parseOrigin(name) {
  const parts = name.split("/");
  const [fleet, box, incarnation] = parts;
  const fine = parts.length === 3 && encoder.encode(name).length <= 255 && isFleet(fleet) &&
    /^[0-9a-f]{40}$/.test(box) && /^(0|[1-9][0-9]{0,19})$/.test(incarnation) && BigInt(incarnation) < 1n << 64n;
  demand(fine, "not an origin of the form fleet/box/incarnation");
  return { name, fleet, box, incarnation };
}

function boxId(fleet, ekSpkiSha256) {
  const name = encoder.encode(fleet);
  return hex(sha256(labelled("bulla/box-id/v1", u16(name.length), name, ekSpkiSha256)).subarray(0, 20));
}

const originText = { tags: [UTF8], read: (element) => parseOrigin(text().read(element)).name };
const fleetText = {
  tags: [UTF8],
  read: (element) => {
    const name = text().read(element);
    demand(isFleet(name), "not a fleet's name");
    return name;
  },
};

const localTime = sequence({ unixMillis: integer(), uncertaintyMillis: optional(0, integer()) });
const mode = enumerated("online", "degraded", "emergency", "reconciling", "safe", "air-gapped", "rollback-suspected");
const residency = enumerated("tpm", "tpm-endorsed-ram", "software");
const treeState = sequence({ size: integer(), root: bytes32 });
const entryRef = sequence({ index: integer(), leafHash: bytes32 });

const entryContent = sequence({
  version: integer(1n, 1n),
  index: integer(),
  lamport: integer(),
  time: localTime,
  mode,
  drill: boolean,
  epoch: integer(),
  residency,
  previous: treeState,
  evidence: optional(0, entryRef),
  kind: integer(65535n),
  body: octets(),
}, ({ index, previous, evidence }) => {
  demand(previous.size <= index, "the tree before it is larger than its index");
  demand(previous.size > 0n || same(previous.root, EMPTY_ROOT), "an empty tree with another root");
  demand(!evidence || evidence.index < index, "time evidence that is not before it");
});
const entryType = sequence({ content: entryContent, signature: octets() });

// An entry: its content, signature, and its leaf hash.
function decodeEntry(bytes) {
  demand(bytes.length <= 65535, "an entry of more than 65,535 bytes");
  const { content, signature } = decode(entryType, bytes);
  return { ...content, contentBytes: content.raw, signature, bytes, leafHash: sha256(Uint8Array.of(0), bytes) };
}

function entryMessage(origin, entry) {
  const name = encoder.encode(origin);
  return labelled("bulla/entry/v1", u16(name.length), name, entry.contentBytes);
}

const field = enumerated("user", "document-id", "metadata");
const assurance = enumerated("asserted", "authenticated");
const sealBody = sequence({
  algorithm: enumerated("sha-256", "sha-512", "sha3-256"),
  digest: octets(),
  size: optional(0, integer()),
  mediaType: text(1, 255),
  observation: enumerated("observed", "claimed"),
  client: sequence({ id: text(1, 255), method: enumerated("bearer token", "client certificate", "local") }),
  transport: text(0, 1024),
  commitments: listOf(sequence({ field, assurance, hash: bytes32 }), 64),
  relations: listOf(sequence({ kind: enumerated("supersedes", "derived from", "annuls"), entry: bytes32 }), 16),
}, ({ algorithm, digest, observation, size }) => {
  demand(digest.length === (algorithm === "sha-512" ? 64 : 32), "a digest of another length");
  demand(observation === "claimed" || size !== undefined, "bytes that were observed, and no size");
});

const openingType = sequence({ field, assurance, salt: bytes32, name: text(1, 128), value: text(0, 8192) },
  ({ field, name }) => demand(field === "metadata" || name === field, "an opening whose name does not fit its field"));

const pcrValue = sequence({ pcr: integer(23n), value: bytes32 });
const tpmQuote = sequence({ attest: octets(), signature: octets(), pcrs: listOf(pcrValue) });
const certification = sequence({ publicArea: octets(), attest: octets(), signature: octets() });

const epochKey = sequence({
  purpose: enumerated("sealing", "interop"),
  algorithm: enumerated("ed25519", "p256"),
  residency,
  publicKey: octets(),
  certification: optional(0, certification),
}, ({ algorithm, residency, publicKey, certification }) => {
  demand(publicKey.length === (algorithm === "p256" ? 65 : 32), "a public key of another length");
  demand((residency === "tpm") === (certification !== undefined), "a key is certified exactly when it lives in the TPM");
});
const epochStatement = sequence({
  version: integer(1n, 1n),
  origin: originText,
  epoch: integer(),
  previous: optional(0, bytes32),
  keys: listOf(epochKey, 8, 1),
}, ({ epoch, previous, keys }) => {
  demand((epoch === 0n) === (previous === undefined), "the first epoch has none before it, every other one has");
  demand(keys.filter(({ purpose }) => purpose === "sealing").length === 1, "not exactly one sealing key");
});
const keyEpochBody = sequence({
  statement: epochStatement,
  firstIndex: integer(),
  previousExtended: boolean,
  endorsement: choice({ quote: tpmQuote, software: octets() }),
  predecessor: optional(0, octets(64, 64)),
  enrolment: optional(1, octets()),
}, ({ statement, firstIndex, predecessor, enrolment }) => {
  demand((statement.epoch === 0n) === (firstIndex === 0n), "epoch 0 begins the log, and no other does");
  demand(statement.epoch > 0n || predecessor === undefined, "epoch 0 has no predecessor");
  demand((firstIndex === 0n) === (enrolment !== undefined), "the enrolment stands exactly in the first entry");
});

const approvals = listOf(sequence({ operator: bytes32, signature: octets(64, 64) }), 16);
const operatorAction = sequence({
  action: text(1, 64),
  parameters: listOf(sequence({ name: text(0, 128), value: text(0, 1024) }), 32),
  reason: text(0, 1024),
  approvals,
});

const cosignature = sequence({ name: text(1, 255), seconds: integer(MAX63 / 1000n), signature: octets(64, 64) });
const anchorProof = sequence({
  authority: text(1, 64),
  operator: text(1, 64),
  evidence: choice({ timestamp: octets(1, 16384), cosignature }),
});
const anchorBody = sequence({
  version: integer(1n, 1n),
  batch: sequence({ size: integer(65536n, 1n), root: bytes32 }),
  index: integer(),
  path: listOf(bytes32, 16),
  head: sequence({ size: integer(MAX63, 1n), root: bytes32 }),
  proofs: listOf(anchorProof, 8, 1),
  manifests: listOf(entryRef, 16),
}, ({ batch, index, head, proofs, manifests }) => {
  demand(index < batch.size, "a place beyond its batch");
  for (let n = 1; n < proofs.length; n++) {
    const [a, b] = [proofs[n - 1], proofs[n]].map(({ authority }) => encoder.encode(authority));
    demand(compare(a, b) < 0, "authorities that are not in ascending order");
  }
  for (let n = 1; n < manifests.length; n++) {
    demand(manifests[n - 1].index < manifests[n].index, "manifests that are not in ascending order");
  }
  demand(manifests.every(({ index }) => index < head.size), "a manifest that is not under the head");
});

const limitReached = enumerated("duration", "seals", "holders");
const finding = sequence({
  authority: text(1, 64),
  operator: text(1, 64),
  failure: optional(0, enumerated("refused", "unreachable", "timeout", "dns", "tls", "http", "answer", "quota", "drill", "other")),
  forMillis: integer(),
  detail: text(0, 1024),
});
const limits = sequence({
  seconds: optional(0, integer()),
  seals: optional(1, integer()),
  holders: optional(2, integer()),
  atLimit: enumerated("continue", "safe"),
  reached: listOf(limitReached, 3),
});
const manifestStatement = sequence({
  version: integer(1n, 1n),
  origin: originText,
  outage: integer(MAX63, 1n),
  sequence: integer(),
  phase: enumerated("open", "refresh", "close"),
  drill: boolean,
  began: localTime,
  made: localTime,
  durationMillis: integer(),
  measuredBy: enumerated("steady clock", "wall clock"),
  first: integer(),
  head: treeState,
  entries: bytes32,
  seals: integer(),
  evidence: optional(0, entryRef),
  findings: listOf(finding, 32),
  holders: listOf(sequence({ name: text(0, 255), size: integer() }), 32),
  wording: sequence({ id: text(1, 64), sha256: bytes32 }),
  limits: optional(1, limits),
  eventLog: optional(2, bytes32),
  approvals,
}, ({ sequence, phase, first, head, seals, evidence }) => {
  demand((sequence === 0n) === (phase === "open"), "the opening manifest is number 0, and no other is");
  demand(first < head.size, "a manifest that covers nothing");
  demand(seals <= head.size - first, "a manifest of more seals than entries");
  demand(!evidence || evidence.index < head.size, "time evidence that is not under the head");
});
const manifestBody = sequence({
  statement: manifestStatement,
  vouched: choice({ quote: tpmQuote, none: text(1, 1024) }),
});

const fleetCertificate = sequence({
  content: sequence({
    version: integer(1n, 1n),
    fleet: fleetText,
    role: enumerated("fleet CA"),
    publicKey: bytes32,
    notBefore: integer(),
    notAfter: integer(),
  }),
  signature: octets(),
});
const enrolmentType = sequence({
  content: sequence({
    version: integer(1n, 1n),
    fleet: fleetText,
    origin: originText,
    hardware: enumerated("tpm", "software"),
    ekSpkiSha256: bytes32,
    ekCertificates: listOf(octets(), 8),
    attestationKey: octets(),
    logKey: bytes32,
    enrolledAt: integer(),
  }),
  chain: listOf(fleetCertificate, 4),
  signature: octets(),
});
const revocationType = sequence({
  content: sequence({
    version: integer(1n, 1n),
    fleet: fleetText,
    origin: originText,
    cause: enumerated("compromise", "retirement", "replaced"),
    good: treeState,
    invalidFrom: integer(),
    roster: integer(),
    rosterHash: bytes32,
    issuedAt: integer(),
  }, ({ fleet, origin, good }) => {
    demand(parseOrigin(origin).fleet === fleet, "a log of another fleet");
    demand(good.size > 0n || same(good.root, EMPTY_ROOT), "an empty tree with another root");
  }),
  chain: listOf(fleetCertificate, 4),
  signature: octets(),
});

const successionType = sequence({
  content: sequence({
    version: integer(1n, 1n),
    fleet: fleetText,
    predecessor: originText,
    successor: originText,
    head: treeState,
    holders: listOf(text(1, 255), 32),
    roster: integer(),
    rosterHash: bytes32,
    issuedAt: integer(),
  }, ({ fleet, predecessor, successor, head, holders }) => {
    const [from, to] = [parseOrigin(predecessor), parseOrigin(successor)];
    demand(from.fleet === fleet && to.fleet === fleet && from.box !== to.box, "origins that are not of two boxes of the fleet");
    demand(head.size > 0n, "a head of nothing");
    const plain = (name) => !name.includes("+") && !WHITE_SPACE.test(name) && !/\p{Cc}/u.test(name);
    const names = holders.map((name) => encoder.encode(name));
    demand(names.length >= 1 && holders.every(plain) && names.every((name, n) => n === 0 || compare(names[n - 1], name) < 0), "holders that are not in ascending order");
  }),
  chain: listOf(fleetCertificate, 4),
  signature: octets(),
});

// Whether a statement of the fleet is signed from one of the roots down its chain. Returns the number of certificates.
async function verifyFleetSigned(label, statement, when, fleet, roots) {
  demand(statement.content.fleet === fleet, "it is of another fleet than the trust file");
  const { chain } = statement;
  const first = chain.length > 0
    ? labelled("bulla/fleet-certificate/v1", chain[0].content.raw)
    : labelled(label, statement.content.raw);
  const signature = chain.length > 0 ? chain[0].signature : statement.signature;
  let signed = false;
  for (const root of roots) signed ||= await edVerify(root, first, signature);
  demand(signed, "no root of the trust file has signed it");
  for (const [n, { content }] of chain.entries()) {
    demand(content.fleet === fleet, "a certificate of another fleet");
    demand(content.notBefore <= when && when <= content.notAfter, "a certificate of the fleet that was not valid then");
    const next = chain[n + 1];
    const message = next ? labelled("bulla/fleet-certificate/v1", next.content.raw) : labelled(label, statement.content.raw);
    demand(await edVerify(content.publicKey, message, next ? next.signature : statement.signature), "a signature below the root does not verify");
  }
  return chain.length;
}

async function decodeRevocation(bytes, fleet, roots) {
  demand(bytes.length <= 8192, "a revocation of more than 8,192 bytes");
  const revocation = decode(revocationType, bytes);
  await verifyFleetSigned("bulla/revocation/v1", revocation, revocation.content.issuedAt, fleet, roots);
  return revocation.content;
}

async function decodeSuccession(bytes, fleet, roots) {
  demand(bytes.length <= 16384, "a succession of more than 16,384 bytes");
  const succession = decode(successionType, bytes);
  await verifyFleetSigned("bulla/succession/v1", succession, succession.content.issuedAt, fleet, roots);
  return succession.content;
}
