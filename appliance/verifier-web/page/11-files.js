// The two files beside the document (section 8): `.seal` and trust file.

const SEAL_MEMBERS = ["bulla", "critical", "origin", "entry", "epoch", "enrolment", "heads", "openings", "erasures", "anchors",
  "evidence", "crls", "manifests", "revocations", "cosignatures"];

const proof = (value, what) => jsonArray(value, what, 64).map(fromBase64);

function parsePcr(value) {
  jsonObject(value, "a PCR", ["pcr", "value"]);
  const pcr = jsonInteger(value.get("pcr"), "a PCR's number", 23n);
  return { pcr, value: fromHex(jsonString(value.get("value"), "a PCR's value"), 32) };
}

// The format string of a file: this version's, or one that a newer verifier knows.
function demandFormat(file, kind, versions) {
  const format = jsonString(file.get("bulla"), "the member \"bulla\"");
  demand(format.startsWith(`${kind}/`), `this is no ${kind} file`);
  if (!versions.includes(format)) throw new Newer(`a ${kind} file of the format ${format}`);
  return format;
}

function parseSeal(bytes) {
  demand(bytes.length <= 4 << 20, "a seal file of more than 4 MiB");
  const file = jsonObject(parseJson(bytes), "the file");
  demandFormat(file, "seal", ["seal/v1"]);
  if (file.has("critical")) {
    for (const name of jsonArray(file.get("critical"), "critical")) {
      if (!SEAL_MEMBERS.includes(jsonString(name, "a name in critical"))) throw new Newer(`the member ${JSON.stringify(name)} is critical and not known`);
    }
  }
  const list = (name, read) => (file.has(name) ? jsonArray(file.get(name), name, 16).map(read) : []);
  const placed = (kind) => (value) => {
    jsonObject(value, kind, ["entry", "checkpoint", "entryProof"]);
    return {
      entry: fromBase64(value.get("entry")),
      checkpoint: jsonString(value.get("checkpoint"), "a checkpoint"),
      entryProof: proof(value.get("entryProof"), "entryProof"),
    };
  };
  const head = (value) => {
    jsonObject(value, "a head", ["checkpoint", "entryProof", "epochProof", "pcrs"]);
    return {
      checkpoint: jsonString(value.get("checkpoint"), "a checkpoint"),
      entryProof: proof(value.get("entryProof"), "entryProof"),
      epochProof: proof(value.get("epochProof"), "epochProof"),
      pcrs: value.has("pcrs") ? jsonArray(value.get("pcrs"), "pcrs").map(parsePcr) : null,
    };
  };
  const seal = {
    origin: jsonString(file.get("origin"), "origin"),
    entry: fromBase64(file.get("entry")),
    epoch: fromBase64(file.get("epoch")),
    enrolment: fromBase64(file.get("enrolment")),
    heads: jsonArray(file.get("heads"), "heads", 16).map(head),
    openings: jsonArray(file.get("openings"), "openings").map(fromBase64),
    erasures: list("erasures", placed("an erasure")),
    anchors: list("anchors", (value) => {
      jsonObject(value, "an anchor", ["body", "entryProof"]);
      return { body: fromBase64(value.get("body")), entryProof: proof(value.get("entryProof"), "entryProof") };
    }),
    evidence: file.has("evidence") ? fromBase64(file.get("evidence")) : null,
    crls: file.has("crls") ? jsonArray(file.get("crls"), "crls", 8).map(parseCrl) : [],
    manifests: list("manifests", placed("a manifest")),
    cosignatures: list("cosignatures", (value) => {
      jsonObject(value, "a cosigned checkpoint", ["checkpoint", "entryProof"]);
      return { checkpoint: jsonString(value.get("checkpoint"), "a checkpoint"), entryProof: proof(value.get("entryProof"), "entryProof") };
    }),
    revocations: list("revocations", (value) => {
      jsonObject(value, "a revocation", ["statement", "entryProof"]);
      return {
        statement: fromBase64(value.get("statement")),
        entryProof: value.has("entryProof") ? proof(value.get("entryProof"), "entryProof") : null,
      };
    }),
  };
  demand(seal.heads.length >= 1, "a seal without a checkpoint");
  return seal;
}

function parseCrl(value) {
  const bytes = fromBase64(value);
  demand(bytes.length <= 65536, "a CRL of more than 65,536 bytes");
  return bytes;
}

// A verifier key of a witness as C2SP spells it: name+keyId+base64(0x04 || key).
function parseWitness(value) {
  jsonObject(value, "a witness", ["operator", "key"]);
  const operator = operatorName(value.get("operator"));
  const [name, id, key, ...rest] = jsonString(value.get("key"), "a witness's key").split("+");
  // Base64 may hold a plus of its own; a name and a key id may not.
  const bytes = fromBase64([key, ...rest].join("+"));
  demand(bytes.length === 33 && bytes[0] === 4 && edKey(bytes.subarray(1)) !== null, "a witness's key of another type");
  demand(name.length > 0 && encoder.encode(name).length <= 255 && !WHITE_SPACE.test(name) && !/\p{Cc}/u.test(name), "a witness's key without a name");
  demand(same(fromHex(id, 4), noteKeyId(name, 0x04, bytes.subarray(1))), "a witness's key whose id is not its own");
  return { operator, name, key: bytes.subarray(1) };
}

function operatorName(value) {
  const { length } = encoder.encode(jsonString(value, "operator"));
  demand(length >= 1 && length <= 64, "an operator's name of no byte, or of more than 64");
  return value;
}

function parseTsa(value) {
  jsonObject(value, "an item of tsaRoots", ["operator", "certificates", "policies"]);
  const roots = jsonArray(value.get("certificates"), "certificates", 8).map((text) => {
    const root = new Certificate(fromBase64(text));
    root.validity();
    demand(root.basicConstraints().isCa, "a pinned root that is no CA");
    return root;
  });
  demand(roots.length >= 1, "an operator without a certificate");
  const policies = jsonArray(value.get("policies"), "policies", 8).map((policy) => {
    demand(isOidText(jsonString(policy, "a policy")), "a policy that is no object identifier");
    return policy;
  });
  return { operator: operatorName(value.get("operator")), roots, policies };
}

function demandDistinct(names, what) {
  demand(new Set(names).size === names.length, `${what} twice`);
}

const TRUST_FORMATS = ["trust/v1", "trust/v2", "trust/v3", "trust/v4", "trust/v5"];
const COUNTED_FACT = /^(mirrored|witnessed)\(([1-9]|[12][0-9]|3[0-2])\)$/;

async function parseTrust(bytes) {
  demand(bytes.length <= 1 << 20, "a trust file of more than 1 MiB");
  const file = jsonObject(parseJson(bytes), "the file");
  const version = TRUST_FORMATS.indexOf(demandFormat(file, "trust", TRUST_FORMATS)) + 1;
  const known = ["bulla", "fleet", "issuedMillis", "roots", "references", "tsaRoots", "revocations", "policy"];
  if (version >= 2) known.push("roster");
  if (version >= 3) known.push("witnesses");
  if (version >= 4) known.push("cosigners");
  if (version >= 5) known.push("successions");
  jsonObject(file, "the trust file", known);

  const fleet = jsonString(file.get("fleet"), "fleet");
  demand(isFleet(fleet), "fleet is not a fleet's name");
  const issuedMillis = jsonInteger(file.get("issuedMillis"), "issuedMillis");
  const roots = jsonArray(file.get("roots"), "roots", 16).map((text) => {
    const key = fromBase64(text);
    demand(key.length === 32, "a root that is not of 32 bytes");
    return key;
  });
  demand(roots.length >= 1, "a trust file without a root");
  const references = jsonArray(file.get("references"), "references").map((value) => {
    jsonObject(value, "a reference", ["name", "pcrs"]);
    const pcrs = jsonArray(value.get("pcrs"), "pcrs").map(parsePcr);
    demand(pcrs.length >= 1 && pcrs.every(({ pcr }, n) => n === 0 || pcrs[n - 1].pcr < pcr), "PCRs that are not in ascending order");
    return { name: jsonString(value.get("name"), "name"), pcrs };
  });

  let tsaRoots = [], witnesses = [], roster = null;
  if (version >= 3) {
    tsaRoots = jsonArray(file.get("tsaRoots"), "tsaRoots", 32).map(parseTsa);
    demandDistinct(tsaRoots.map(({ operator }) => operator), "an operator");
    witnesses = jsonArray(file.get("witnesses"), "witnesses", 32).map(parseWitness);
    demandDistinct(witnesses.map(({ name }) => name), "a witness's name");
    demand(version > 3 || tsaRoots.length + witnesses.length > 0, "a trust/v3 file without authorities");
  } else if (jsonArray(file.get("tsaRoots"), "tsaRoots").length > 0) {
    throw new Newer("authorities in a trust file of this format");
  }
  if (version === 2 || version === 5 || file.has("roster")) {
    const value = jsonObject(file.get("roster"), "roster", ["version", "sha256"]);
    fromHex(value.get("sha256"), 32);
    roster = jsonInteger(value.get("version"), "roster.version");
  }
  const statements = jsonArray(file.get("revocations"), "revocations", 1024);
  if (roster === null && statements.length > 0) throw new Newer("revocations in a trust file without a roster");
  const revocations = [];
  for (const statement of statements) revocations.push(await decodeRevocation(fromBase64(statement), fleet, roots));
  const logs = revocations.map(({ origin }) => encoder.encode(origin));
  demand(logs.every((log, n) => n === 0 || compare(logs[n - 1], log) < 0), "revocations that are not in ascending order");

  const successions = [];
  if (version >= 5) {
    for (const statement of jsonArray(file.get("successions"), "successions", 1024)) successions.push(await decodeSuccession(fromBase64(statement), fleet, roots));
    const ended = successions.map(({ predecessor }) => encoder.encode(predecessor));
    demand(ended.length >= 1 && ended.every((log, n) => n === 0 || compare(ended[n - 1], log) < 0), "no successions, or in another order");
  }

  const members = ["acceptSoftware", "requireFacts"];
  if (version >= 3) members.push("operators");
  const policy = jsonObject(file.get("policy"), "policy", members);
  const cosigners = version >= 4 ? await readCosigners(file.get("cosigners"), version) : [];
  const authorities = tsaRoots.length + witnesses.length;
  const facts = authorities > 0 ? ["sealed", "attested", "anchored"] : ["sealed", "attested"];
  const requireFacts = jsonArray(policy.get("requireFacts"), "requireFacts").map((fact) => {
    const counted = COUNTED_FACT.test(jsonString(fact, "a required fact")) && cosigners.length > 0;
    demand(counted || facts.includes(fact), "an unknown fact is required");
    return fact;
  });
  const operators = version >= 3 ? Number(jsonInteger(policy.get("operators"), "policy.operators", 8n)) : 1;
  demand(operators >= 1 && (operators === 1 || authorities > 0), "policy.operators is 0, or more than 1 of none");
  return {
    fleet, issuedMillis, roots, references, tsaRoots, witnesses, cosigners, roster, revocations, successions, requireFacts, operators,
    acceptSoftware: jsonBoolean(policy.get("acceptSoftware"), "policy.acceptSoftware"),
    fingerprint: fingerprint(bytes),
  };
}

// The first 100 bits under a label, to be read out over the phone.
function fingerprint(bytes) {
  let bits = unsigned(sha256(labelled("bulla/trust-fingerprint/v1", bytes)).subarray(0, 13)) >> 4n;
  let characters = "";
  for (let n = 0; n < 20; n++, bits >>= 5n) characters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[Number(bits & 31n)] + characters;
  return characters.match(/.{4}/g).join("-");
}
