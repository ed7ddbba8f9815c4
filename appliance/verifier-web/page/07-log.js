// The log (sections 1 and 6): inclusion proofs, and checkpoints as C2SP signed notes.

function nodeHash(left, right) {
  return sha256(Uint8Array.of(1), left, right);
}

const bitLength = (number) => (number === 0n ? 0 : number.toString(2).length);

// The root that a leaf at `index` of a tree of `size` leads to (RFC 9162, 2.1.3).
function rootFrom(leafHash, index, size, path) {
  demand(index < size, "an index that is not in the tree");
  const inner = bitLength(index ^ (size - 1n));
  const right = (index >> BigInt(inner)).toString(2).replace(/0/g, "").length;
  demand(path.length === inner + right, "an inclusion proof of another length");
  demand(path.every((hash) => hash.length === 32), "a hash that is not of 32 bytes");
  return path.reduce((hash, sibling, level) => {
    const isRight = level >= inner || ((index >> BigInt(level)) & 1n) === 1n;
    return isRight ? nodeHash(sibling, hash) : nodeHash(hash, sibling);
  }, leafHash);
}

function demandIncluded(leafHash, index, { size, root }, path, what) {
  demand(same(rootFrom(leafHash, index, size, path), root), `${what} is not in that tree`);
}

function checkpointText(origin, { size, root }) {
  return `${origin}\n${size}\n${toBase64(root)}\n`;
}

const WHITE_SPACE = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

function noteKeyId(name, type, ...key) {
  return sha256(encoder.encode(name), Uint8Array.of(0x0a, type), ...key).subarray(0, 4);
}

// A note: its text, and its signature lines as { name, keyId, body }.
function parseNote(note) {
  demand(encoder.encode(note).length <= 65536, "a note of more than 65,536 bytes");
  // eslint-disable-next-line no-control-regex
  demand(!/[\x00-\x09\x0b-\x1f]/.test(note), "a note with a control character");
  const at = note.lastIndexOf("\n\n");
  demand(at >= 0, "a note without an empty line");
  const lines = note.slice(at + 2).split("\n");
  demand(lines.pop() === "", "a note whose last line does not end");
  demand(lines.length >= 1 && lines.length <= 16, "a note of no signature line, or of more than 16");
  const signatures = lines.map((line) => {
    demand(line.startsWith("\u2014 "), "a signature line of another form");
    const space = line.indexOf(" ", 2);
    demand(space > 2, "a signature line of another form");
    const name = line.slice(2, space);
    demand(!WHITE_SPACE.test(name) && !name.includes("+"), "a key name with white space or a plus");
    const bytes = fromBase64(line.slice(space + 1));
    demand(bytes.length >= 5, "a signature line without a signature");
    return { name, keyId: bytes.subarray(0, 4), body: bytes.subarray(4) };
  });
  return { text: note.slice(0, at + 1), signatures };
}

// Check *checkpoint*: the log's own line verifies. Returns the tree, and the body of the quote line if there is one.
async function verifyCheckpoint(note, origin, enrolment) {
  const { text, signatures } = parseNote(note);
  const [name, size, root, ...rest] = text.split("\n");
  demand(rest.length === 1 && rest[0] === "", "a checkpoint of other than three lines");
  demand(name === origin, "a checkpoint of another log");
  demand(/^(0|[1-9][0-9]*)$/.test(size) && BigInt(size) <= MAX63, "a checkpoint whose size is no plain number");
  const state = { size: BigInt(size), root: fromBase64(root) };
  demand(state.root.length === 32, "a root that is not of 32 bytes");

  const line = (keyId, what) => {
    const found = signatures.filter((one) => one.name === origin && same(one.keyId, keyId));
    demand(found.length <= 1, `${what} twice`);
    return found[0]?.body;
  };
  const log = line(noteKeyId(origin, 0x01, enrolment.logKey), "the log's line");
  demand(log !== undefined, "the log has not signed this checkpoint");
  const quote = line(noteKeyId(origin, 0xff, encoder.encode("bulla/tpm-quote/v1"), enrolment.attestationKey), "the quote's line");
  demand(await edVerify(enrolment.logKey, encoder.encode(text), log), "the log's signature does not verify");
  return { text, state, quote: quote && parseQuoteLine(quote) };
}

function parseQuoteLine(body) {
  const fields = new Fields(body);
  demand(fields.number(1) === 1n, "a quote line of another version");
  const quote = { attest: fields.sized(), signature: fields.sized() };
  fields.end();
  return quote;
}
