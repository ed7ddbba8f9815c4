// The judgement: section 9 of docs/formats.md, check by check, in its order. The first check that fails ends it.
// A check is reported as { check, outcome, say, args, why }: `say` names its sentence (words.js), `args` are what stands
// in it, `why` is the reason of a failure in English. Nothing is asked of a clock or of a network.

class Report {
  constructor(trust) {
    this.checks = [];
    this.verdict = null;
    this.facts = [];
    this.interval = null;
    this.trust = trust;
    this.seal = null;
    this.opened = [];
  }
  add(check, outcome, say, args = {}, why = "") {
    this.checks.push({ check, outcome, say, args, why });
  }
  pass(check, say, args) {
    this.add(check, "passed", say, args);
  }
  end(verdict) {
    this.verdict = verdict;
    return this;
  }
}

// Ends a verification, the verdict having been set.
class Ended extends Error {}

// `documentDigest(algorithm)` is asked for { digest, size } at most once; null when there is no document.
async function verifySeal(sealBytes, trust, documentDigest) {
  const report = new Report(trust);
  try {
    await judge(report, sealBytes, trust, documentDigest);
  } catch (error) {
    if (!(error instanceof Ended)) throw error;
  }
  return report;
}

async function judge(report, sealBytes, trust, documentDigest) {
  // Runs one check: what it throws is its failure, and the end.
  const check = async (name, run, verdict = "refused") => {
    try {
      return await run();
    } catch (error) {
      if (error instanceof Newer) verdict = "not-understood";
      else if (!(error instanceof Refused)) throw error;
      report.add(name, "failed", verdict === "not-understood" ? "newer" : verdict === "indeterminate" ? "indeterminate" : "failed", {}, error.message);
      report.end(verdict);
      throw new Ended();
    }
  };

  // 1
  const seal = await check("seal-file", () => parseSeal(sealBytes));
  report.pass("seal-file", "fine", { heads: seal.heads.length });
  const { origin } = seal;

  // 2
  const { enrolment, chain } = await check("enrolment", async () => {
    demand(seal.enrolment.length <= 32768, "an enrolment of more than 32,768 bytes");
    const enrolment = decode(enrolmentType, seal.enrolment);
    const { content } = enrolment;
    const chain = await verifyFleetSigned("bulla/enrolment/v1", enrolment, content.enrolledAt, trust.fleet, trust.roots);
    demand(parseOrigin(content.origin).fleet === content.fleet && parseOrigin(content.origin).box === boxId(content.fleet, content.ekSpkiSha256),
      "its origin does not follow from its fleet and its TPM");
    demand(content.origin === origin, "it is of another log than the file");
    demand(edKey(content.logKey) !== null, "its log key is no key");
    return { enrolment: content, chain };
  });
  report.pass("enrolment", "fine", { fleet: enrolment.fleet, origin, chain });

  // 3
  const isTpm = enrolment.hardware === "tpm";
  const attestationKey = await check("attestation-key", () => {
    if (!isTpm) {
      demand(isCurvePoint("P-256", enrolment.attestationKey), "not a point of P-256");
      return enrolment.attestationKey;
    }
    const area = parsePublicArea(enrolment.attestationKey);
    demandSigningKey(area, true);
    return area.point;
  });
  report.pass("attestation-key", isTpm ? "tpm" : "software");

  // 4
  const { epoch, epochBody, sealingKey } = await check("epoch-entry", () => {
    const epoch = decodeEntry(seal.epoch);
    demand(epoch.kind === 1n, "an entry of another kind");
    const epochBody = decode(keyEpochBody, epoch.body);
    const { statement, firstIndex } = epochBody;
    const sealingKey = statement.keys.find(({ purpose }) => purpose === "sealing");
    demand(statement.origin === origin, "it is of another log");
    demand(firstIndex === epoch.index && statement.epoch === epoch.epoch, "it is not the first entry of its epoch");
    demand(epochBody.enrolment === undefined || same(epochBody.enrolment, seal.enrolment), "it embeds another enrolment");
    demand(sealingKey.residency === epoch.residency, "its key lives elsewhere than it says");
    for (const { algorithm, publicKey, residency } of statement.keys) {
      demand(algorithm === "p256" ? isCurvePoint("P-256", publicKey) : edKey(publicKey) !== null, "a key that is none");
      demand((residency === "software") === !isTpm, "a key that lives elsewhere than the box's hardware allows");
    }
    return { epoch, epochBody, sealingKey };
  });
  report.pass("epoch-entry", sealingKey.residency, { epoch: epoch.epoch });

  // 5
  const signedBySealingKey = (entry) => sealingKey.algorithm === "p256"
    ? ecVerify("P-256", sealingKey.publicKey, "SHA-256", entryMessage(origin, entry), entry.signature)
    : edVerify(sealingKey.publicKey, entryMessage(origin, entry), entry.signature);
  await check("epoch-signature", async () => demand(await signedBySealingKey(epoch), "the key it introduces has not signed it"));
  report.pass("epoch-signature", "fine");

  // 6. A quote's PCR values are kept for boot-state.
  const quoted = [];
  await check("epoch-endorsement", async () => {
    const { endorsement, statement } = epochBody;
    demand((endorsement.quote !== undefined) === isTpm, "an endorsement of the other kind");
    const message = labelled("bulla/quote/epoch/v1", statement.raw);
    if (!isTpm) {
      demand(await ecVerify("P-256", attestationKey, "SHA-256", message, endorsement.software), "the device key has not signed it");
      return;
    }
    await verifyQuote(endorsement.quote, endorsement.quote.pcrs, attestationKey, sha256(message));
    quoted.push(endorsement.quote.pcrs);
    for (const { purpose, algorithm, publicKey, certification } of statement.keys) {
      if (certification === undefined) continue;
      const area = parsePublicArea(certification.publicArea);
      demandSigningKey(area, false);
      demand(algorithm === "p256" && same(area.point, publicKey), "the certified key is another one");
      const qualifying = sha256(labelled("bulla/certify/key/v1", encoder.encode(purpose)));
      const { name } = await verifyAttest("certify", certification.attest, certification.signature, attestationKey, qualifying);
      demand(same(name, area.name), "the TPM certified another key");
    }
  });
  report.pass("epoch-endorsement", isTpm ? "tpm" : "software");

  // 7 and 8: what nobody signed means nothing, so the body is read when the signature has held, and reported before it.
  const token = await check("token", () => {
    const token = decodeEntry(seal.entry);
    demand(token.epoch === epoch.epoch && token.residency === epoch.residency, "it is of another epoch, or its key lives elsewhere");
    demand(token.index > epoch.index, "it stands before its epoch began");
    return token;
  });
  const signed = await signedBySealingKey(token);
  const known = token.kind <= 15n;
  const body = signed && known ? await check("token", () => {
    demand(token.kind === 0n, "an entry that is no seal");
    return decode(sealBody, token.body);
  }) : null;
  await check("token-signature", () => demand(signed, "the sealing key has not signed it"));
  report.pass("token", body ? "fine" : "unread", { index: token.index, mode: token.mode, time: token.time.unixMillis, drill: token.drill, ...body });
  report.pass("token-signature", "fine", { epoch: epoch.epoch });

  // 9
  const trees = [];
  for (const head of seal.heads) {
    const checkpoint = await check("checkpoint", () => verifyCheckpoint(head.checkpoint, origin, enrolment));
    report.pass("checkpoint", "fine", { size: checkpoint.state.size });
    await check("inclusion", () => demandIncluded(token.leafHash, token.index, checkpoint.state, head.entryProof, "the entry"));
    report.pass("inclusion", "fine", { index: token.index });
    await check("epoch-inclusion", () => demandIncluded(epoch.leafHash, epoch.index, checkpoint.state, head.epochProof, "the key's entry"));
    report.pass("epoch-inclusion", "fine", { index: epoch.index });
    trees.push(checkpoint.state);
    const quote = await check("quote", async () => {
      demand((checkpoint.quote !== undefined) === (head.pcrs !== null), "a quote without PCR values, or PCR values without a quote");
      if (head.pcrs === null) return null;
      demand(isTpm, "a quote of a box without a TPM");
      const name = encoder.encode(origin), text = encoder.encode(checkpoint.text);
      const claim = derElement(SEQUENCE, derElement(UTF8, name), derElement(OCTETS, text));
      return verifyQuote(checkpoint.quote, head.pcrs, attestationKey, sha256(labelled("bulla/quote/checkpoint/v1", claim)));
    });
    if (quote !== null) {
      quoted.push(head.pcrs);
      report.pass("quote", "fine", { pcrs: head.pcrs.length, resets: quote.resets });
    }
  }
  const attestedHeads = seal.heads.filter(({ pcrs }) => pcrs !== null).length;

  // 9a
  await check("body", () => {
    if (!known) throw new Newer(`an entry of kind ${token.kind}`);
  });

  // 10
  let bootFits = true;
  if (quoted.length === 0) {
    report.add("boot-state", "not judged", "no-quote");
  } else if (trust.references.length === 0) {
    report.add("boot-state", "not judged", "no-references");
  } else {
    const fits = (pcrs, reference) => reference.pcrs.every(({ pcr, value }) =>
      pcrs.some((one) => one.pcr === pcr && same(one.value, value)));
    const names = quoted.map((pcrs) => trust.references.find((reference) => fits(pcrs, reference))?.name);
    bootFits = names.every((name) => name !== undefined);
    if (bootFits) report.pass("boot-state", "fine", { names: [...new Set(names)].join(", ") });
    else report.add("boot-state", "not judged", "unknown");
  }

  // 11
  const opened = await check("openings", () => {
    const found = new Set();
    return seal.openings.map((bytes) => {
      const opening = decode(openingType, bytes);
      const hash = sha256(labelled("bulla/commitment/v1", bytes));
      const fits = body.commitments.some((one) => one.field === opening.field && one.assurance === opening.assurance && same(one.hash, hash));
      demand(fits, "an opening that opens nothing");
      demand(!found.has(hex(hash)), "an opening that comes twice");
      found.add(hex(hash));
      return opening;
    });
  });
  report.pass("openings", "fine", { opened: opened.length, of: body.commitments.length });

  // 11a
  for (const erasure of seal.erasures) {
    const entry = await check("erasure", async () => {
      const entry = decodeEntry(erasure.entry);
      demand(entry.kind === 10n && entry.index > token.index, "an entry that is no erasure of this seal");
      const { action, parameters } = decode(operatorAction, entry.body);
      const leaves = parameters.map(({ name, value }) => name === "leaf" && /^[0-9a-f]{64}$/.test(value) ? value : null);
      demand(action === "erase" && leaves.length >= 1 && leaves.every((leaf) => leaf !== null), "an action that is no erasure");
      demand(leaves.includes(hex(token.leafHash)), "an erasure of other seals");
      const { state } = await verifyCheckpoint(erasure.checkpoint, origin, enrolment);
      demandIncluded(entry.leafHash, entry.index, state, erasure.entryProof, "the erasure");
      return entry;
    });
    report.pass("erasure", "fine", { index: entry.index });
  }

  // 11b to 11d
  const crls = await check("revocation-status", () => seal.crls.map((bytes) => new Crl(bytes)));
  const replies = [];
  const judgeProofs = async (anchorBody, name, stated) => {
    const checkpoint = encoder.encode(checkpointText(origin, anchorBody.head));
    const leaf = sha256(Uint8Array.of(0), checkpoint);
    demandIncluded(leaf, anchorBody.index, anchorBody.batch, anchorBody.path, "the checkpoint");
    const imprint = sha256(labelled("bulla/anchor/v1", u64(anchorBody.batch.size), anchorBody.batch.root));
    const lines = [];
    for (const { authority, operator, evidence } of anchorBody.proofs) {
      if (evidence.timestamp) replies.push(evidence.timestamp);
      const args = { authority, operator, size: anchorBody.head.size };
      try {
        const said = await judgeProof(evidence, operator, imprint, checkpoint, trust);
        stated.push({ authority, operator, ...said });
        lines.push(["passed", "fine", { ...args, earliest: said.earliest, latest: said.latest }]);
      } catch (error) {
        if (!(error instanceof NotJudged)) throw error;
        lines.push(["not judged", error.message, args]);
      }
    }
    for (const line of lines) report.add(name, ...line);
  };
  const befores = [], afters = [];
  for (const anchor of seal.anchors) {
    await check("anchor", async () => {
      const anchorContent = decode(anchorBody, anchor.body);
      demandIncluded(token.leafHash, token.index, anchorContent.head, anchor.entryProof, "the entry");
      await judgeProofs(anchorContent, "anchor", befores);
    });
  }
  if (seal.evidence !== null) {
    await check("time-evidence", async () => {
      const entry = decodeEntry(seal.evidence);
      const named = token.evidence;
      demand(named && named.index === entry.index && same(named.leafHash, entry.leafHash), "the token names another entry, or none");
      demand(entry.kind === 3n, "an entry that is no anchor");
      await judgeProofs(decode(anchorBody, entry.body), "time-evidence", afters);
    });
  }

  const held = [...befores, ...afters].filter(({ vouched }) => vouched !== undefined);
  for (const crl of crls) {
    const isKnown = await check("revocation-status", () => isOfKnown(crl, held, replies));
    if (!isKnown) report.add("revocation-status", "not judged", "stranger", { issuer: await nameOf(crl.issuer) });
  }
  const doubtful = new Set(), toldOf = new Set();
  for (const stamp of held) {
    const { say, subject, ...args } = await standing(stamp, crls);
    if (say === "doubtful") doubtful.add(stamp);
    // Stamps of an authority that stand alike are told of once.
    const key = JSON.stringify([say, subject && hex(subject), Object.values(args).map(String)]);
    if (toldOf.has(key)) continue;
    toldOf.add(key);
    const isGood = say === "good" || say === "later";
    report.add("revocation-status", isGood ? "passed" : "not judged", say, { ...args, subject: subject && await nameOf(subject) });
  }
  const counted = (stated) => stated.filter((one) => !doubtful.has(one));

  // 11e
  for (const manifest of seal.manifests) {
    const statement = await check("manifest", async () => {
      const entry = decodeEntry(manifest.entry);
      demand(entry.kind === 5n, "an entry that is no manifest");
      const { statement } = decode(manifestBody, entry.body);
      demand(statement.origin === origin, "a manifest of another log");
      demand(statement.head.size <= entry.index, "a manifest that covers itself");
      demand(statement.first <= token.index && token.index < statement.head.size, "a manifest that does not cover this seal");
      const { state } = await verifyCheckpoint(manifest.checkpoint, origin, enrolment);
      demandIncluded(entry.leafHash, entry.index, state, manifest.entryProof, "the manifest");
      return statement;
    });
    report.pass("manifest", "fine", { ...statement, last: statement.head.size - 1n, began: statement.began.unixMillis });
  }

  // 11f
  let { after, before } = bounds(counted(afters), counted(befores), trust.operators);
  if (after !== null && before !== null && after > before) {
    report.add("interval", "not judged", "contradiction", { after, before });
    after = before = null;
  } else if (before !== null) {
    report.pass("interval", "fine", { before });
  } else if (counted(befores).length > 0) {
    report.add("interval", "not judged", "too-few", { operators: trust.operators });
  }

  // 11g
  const stated = trust.revocations.filter((one) => one.origin === origin);
  const shown = [...trees];
  await check("revocation", async () => {
    for (const { statement, entryProof } of seal.revocations) {
      const revocation = await decodeRevocation(statement, trust.fleet, trust.roots);
      demand(revocation.origin === origin, "it is of another log");
      if (entryProof !== null) {
        demandIncluded(token.leafHash, token.index, revocation.good, entryProof, "the entry");
        shown.push(revocation.good);
      }
      stated.push(revocation);
    }
  });
  const isShown = ({ good }) => shown.some((tree) => tree.size === good.size && same(tree.root, good.root));
  const compromises = stated.filter(({ cause }) => cause === "compromise");
  await check("revocation", () => {
    const fine = compromises.every((one) => isShown(one) || (before !== null && before < one.invalidFrom));
    demand(fine, "the log was compromised, and nothing shows that the entry was made before");
  }, "indeterminate");
  // What weighs most is told, in one line; a trust file without a roster knows of none.
  const told = compromises[0] ?? stated[0];
  const next = trust.successions.find(({ predecessor }) => predecessor === origin);
  const past = trust.successions.find(({ successor }) => successor === origin);
  const follows = { next: next?.successor, previous: past?.predecessor };
  if (told) {
    const how = told.cause !== "compromise" ? told.cause : isShown(told) ? "shown" : "in-time";
    report.pass("revocation", how, { index: token.index, size: told.good.size, invalidFrom: told.invalidFrom, ...follows });
  } else if (trust.roster !== null) {
    report.pass("revocation", "none", { roster: trust.roster, ...follows });
  }

  // 11h
  const mirrors = new Set(), holders = new Set();
  for (const cosigned of seal.cosignatures) {
    const { size, names, others } = await check("cosignatures", async () => {
      const { state, quote } = await verifyCheckpoint(cosigned.checkpoint, origin, enrolment);
      demandIncluded(token.leafHash, token.index, state, cosigned.entryProof, "the entry");
      const note = parseNote(cosigned.checkpoint);
      const names = [];
      for (const card of trust.cosigners) {
        const compromised = trust.revocations.some((one) => one.origin === card.origin && one.cause === "compromise");
        const box = boxOf(card.origin);
        for (const role of ["witness", "mirror"]) {
          if (!(await hasCosigned(card, role, note)) || compromised || box === boxOf(origin)) continue;
          if (role === "mirror") mirrors.add(box);
          holders.add(box);
          names.push(`${card.origin} (${role})`);
        }
      }
      return { size: state.size, names, others: note.signatures.length - 1 - (quote ? 1 : 0) - names.length };
    });
    const args = { size, names: names.join(", "), others };
    if (names.length > 0) report.pass("cosignatures", "fine", args);
    else report.add("cosignatures", "not judged", "strangers", args);
  }

  report.facts.push("sealed");
  if (attestedHeads > 0 && bootFits) report.facts.push("attested");
  if (before !== null) report.facts.push("anchored");
  const counts = { mirrored: mirrors.size, witnessed: holders.size };
  for (const [fact, count] of Object.entries(counts)) if (count > 0) report.facts.push(`${fact}(${count})`);
  report.interval = { after, before, local: token.time };
  report.seal = { origin: parseOrigin(origin), token, body };
  report.opened = opened;

  // 12
  const document = documentDigest === null ? null : await documentDigest(body.algorithm);
  if (document !== null) {
    const say = { algorithm: body.algorithm, digest: hex(document.digest) };
    const fits = same(document.digest, body.digest) && (body.size === undefined || body.size === document.size);
    await check("document", () => demand(fits, "these are other bytes than were sealed"), "other-document");
    report.pass("document", "fine", say);
  } else {
    report.add("document", "not judged", "none", { algorithm: body.algorithm, digest: hex(body.digest) });
  }

  // 13
  await check("policy", () => {
    demand(token.residency !== "software" || trust.acceptSoftware, "the trust file does not accept keys in software");
    for (const fact of trust.requireFacts) {
      const [, what, least] = COUNTED_FACT.exec(fact) ?? [];
      demand(what ? counts[what] >= Number(least) : report.facts.includes(fact), `the trust file requires the fact ${fact}`);
    }
  }, "policy-unmet");
  report.pass("policy", "fine", { facts: trust.requireFacts.length });
  report.end(document === null ? "seal-only" : "valid");
}

// Fleet and box: whoever began a new log is the same box.
const boxOf = (origin) => origin.slice(0, origin.lastIndexOf("/"));

// A name for people, as far as it is one.
async function nameOf(name) {
  return (await orNull(() => nameText(name))) ?? "?";
}

// One proof of an anchor: when it was made, in microseconds, and by whose certificates.
async function judgeProof({ timestamp, cosignature }, operator, imprint, checkpoint, trust) {
  if (timestamp) {
    const known = trust.tsaRoots.find((one) => one.operator === operator);
    if (!known) throw new NotJudged("stranger");
    return verifyStamp(timestamp, imprint, known);
  }
  const { name, seconds, signature } = cosignature;
  const known = trust.witnesses.find((one) => one.operator === operator && one.name === name);
  if (!known) throw new NotJudged("stranger");
  const message = concat(encoder.encode(`cosignature/v1\ntime ${seconds}\n`), checkpoint);
  demand(await edVerify(known.key, message, signature), "the witness has not signed it");
  return { earliest: seconds * SECOND, latest: (seconds + 1n) * SECOND };
}

// The n-th latest of the operators' earliest times, the n-th earliest of their latest ones, each by its best; in milliseconds.
function bounds(afters, befores, operators) {
  const best = (stated, time, isBetter) => {
    const found = new Map();
    for (const one of stated) {
      if (!found.has(one.operator) || isBetter(one[time], found.get(one.operator))) found.set(one.operator, one[time]);
    }
    return [...found.values()].sort((a, b) => (isBetter(a, b) ? -1 : isBetter(b, a) ? 1 : 0))[operators - 1];
  };
  const after = best(afters, "earliest", (a, b) => a > b), before = best(befores, "latest", (a, b) => a < b);
  return {
    after: after === undefined ? null : after / 1000n,
    before: before === undefined ? null : (before + 999n) / 1000n,
  };
}

// The digest of a document's bytes, which come in pieces, by the algorithm that its token names.
async function digestOf(algorithm, pieces) {
  const hash = { "sha-256": () => new Sha256(), "sha3-256": () => new Sha3() }[algorithm]?.();
  let size = 0;
  const kept = [];
  for await (const piece of pieces) {
    size += piece.length;
    if (hash) hash.update(piece); else kept.push(piece);
  }
  return { digest: hash ? hash.finish() : await webHash("SHA-512", concat(...kept)), size: BigInt(size) };
}
