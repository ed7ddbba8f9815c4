// Cards (section 20) of boxes whose cosignatures the trust file lets count, and what they put under a checkpoint.

const cardType = sequence({
  content: sequence({
    version: integer(1n, 1n),
    origin: originText,
    logKey: bytes32,
    witnessKey: bytes32,
    mirrorKey: bytes32,
    transportKey: bytes32,
    sequence: integer(MAX63, 1n),
    addresses: listOf(text(1, 256), 8),
  }, ({ addresses }) => {
    demand(addresses.every((address) => /^\/[\x21-\x7e]*$/.test(address)), "an address that is none");
    demandDistinct(addresses, "an address");
  }),
  signatures: sequence({ log: octets(), witness: octets(), mirror: octets(), transport: octets() }),
});

async function readCard(bytes) {
  demand(bytes.length <= 4096, "a card of more than 4,096 bytes");
  const { content, signatures } = decode(cardType, bytes);
  const names = ["log", "witness", "mirror", "transport"];
  const keys = names.map((name) => content[`${name}Key`]);
  demandDistinct(keys.map(hex), "a card's key");
  const message = labelled("bulla/peer-card/v1", content.raw);
  for (const [n, name] of names.entries()) {
    demand(await edVerify(keys[n], message, signatures[name]), `a card that its ${name} key has not signed`);
  }
  const { origin } = content;
  demand(encoder.encode(`${origin}/witness`).length <= 255, "a card whose name is too long for a cosigner");
  return { origin, keys: keys.map(hex), roles: { witness: content.witnessKey, mirror: content.mirrorKey } };
}

async function readCosigners(value, version) {
  const cards = [];
  for (const item of jsonArray(value, "cosigners", 32)) {
    const card = await readCard(fromBase64(item));
    const before = cards.at(-1);
    demand(!before || compare(encoder.encode(before.origin), encoder.encode(card.origin)) < 0, "cosigners that are not in ascending order");
    cards.push(card);
  }
  demand(cards.length >= 1 || version > 4, "a trust/v4 file without cosigners");
  demandDistinct(cards.flatMap(({ keys }) => keys), "a cosigner's key");
  return cards;
}

// Whether the box of this card has put its line in that role under the note; one that does not hold is refused.
async function hasCosigned({ origin, roles }, role, { text, signatures }) {
  const name = `${origin}/${role}`, key = roles[role];
  const id = noteKeyId(name, 0x04, key);
  const lines = signatures.filter((line) => line.name === name && same(line.keyId, id));
  if (lines.length === 0) return false;
  const [{ body }] = lines;
  demand(lines.length === 1 && body.length >= 8, "a cosigner's line that comes twice, or is too short");
  const seconds = unsigned(body.subarray(0, 8));
  demand(seconds > 0n && seconds <= MAX63 / 1000n, "a cosignature of no time");
  const message = encoder.encode(`cosignature/v1\ntime ${seconds}\n${text}`);
  demand(await edVerify(key, message, body.subarray(8)), "a cosigner's line that does not verify");
  return true;
}
