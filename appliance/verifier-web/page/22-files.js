// The files that were dropped or chosen: which is what, which belong together, and when all is judged anew.

const held = [];
let judged = { trust: null, results: [], lone: [] };
let round = 0;

const at = (id) => document.getElementById(id);

async function* piecesOf(file) {
  for (let from = 0; from < file.size; from += 4 << 20) {
    yield new Uint8Array(await file.slice(from, from + (4 << 20)).arrayBuffer());
  }
}
const bytesOf = async (file) => new Uint8Array(await file.arrayBuffer());

// By its name, or by what it says it is in its first bytes. What has a seal of its own is a document.
async function kindOf(file, names) {
  const name = file.name.toLowerCase();
  if (names.has(`${file.name}.seal`)) return "document";
  if (name.endsWith(".seal")) return "seal";
  if (file.size > 4 << 20) return "document";
  const start = new TextDecoder().decode(await file.slice(0, 65536).arrayBuffer());
  const found = /^\s*\{[^]*?"bulla"\s*:\s*"(seal|trust)\//.exec(start);
  if (found) return found[1];
  return name === "trust.json" ? "trust" : "document";
}

// Each seal with the document of its name; then what is left by the bytes themselves; a last pair by being the last.
async function pairUp(seals, documents, trust) {
  const left = new Set(documents);
  const pairs = seals.map((seal) => {
    const document = documents.find((one) => left.has(one) && `${one.file.name}.seal` === seal.file.name) ?? null;
    left.delete(document);
    return { seal, document };
  });
  for (const pair of pairs.filter(({ document }) => document === null)) {
    const alone = await BullaVerifier.verifySeal(await bytesOf(pair.seal.file), trust, null);
    if (!alone.seal) continue;
    for (const one of left) {
      const { algorithm, digest } = alone.seal.body;
      const found = await BullaVerifier.digestOf(algorithm, piecesOf(one.file));
      if (hexText(found.digest) !== hexText(digest)) continue;
      pair.document = one;
      left.delete(one);
      break;
    }
  }
  const open = pairs.filter(({ document }) => document === null);
  if (open.length === 1 && left.size === 1) {
    [open[0].document] = left;
    left.clear();
  }
  return { pairs, left: [...left] };
}

async function judgeAll() {
  const mine = ++round;
  const names = new Set(held.map(({ file }) => file.name));
  for (const one of held) one.kind = await kindOf(one.file, names);
  const of = (kind) => held.filter((one) => one.kind === kind);
  showHeld();
  // The newest trust file counts.
  const trustFile = of("trust").at(-1);
  const trust = trustFile ? { name: trustFile.file.name, ...(await BullaVerifier.openTrust(await bytesOf(trustFile.file))) } : null;
  const next = { trust, results: [], lone: [] };
  if (trust?.trust) {
    at("status").textContent = words().working;
    const { pairs, left } = await pairUp(of("seal"), of("document"), trust.trust);
    for (const { seal, document } of pairs) {
      const digest = document && ((algorithm) => BullaVerifier.digestOf(algorithm, piecesOf(document.file)));
      const report = await BullaVerifier.verifySeal(await bytesOf(seal.file), trust.trust, digest);
      next.results.push({ report, names: { seal: seal.file.name, document: document?.file.name } });
    }
    next.lone = left.map(({ file }) => file.name);
  }
  // Files that came meanwhile have begun a round of their own.
  if (mine !== round) return;
  judged = next;
  show();
}

function showHeld() {
  const w = words();
  at("held").replaceChildren(...held.map(({ file, kind }) =>
    make("li", {}, make("span", {}, file.name), make("span", { class: "kind" }, w.kind[kind] ?? ""))));
  at("clear").hidden = held.length === 0;
}

function show() {
  const w = words();
  document.documentElement.lang = language;
  document.title = `Bulla ${w.product}`;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = w[element.dataset.word];
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", w[element.dataset.label]);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  showHeld();
  const { trust, results, lone } = judged;
  at("trust").replaceChildren(...(trust ? [trustCard(trust)] : []));
  at("results").replaceChildren(...results.map(resultCard), ...lone.map(loneCard));
  const good = results.filter(({ report }) => report.verdict === "valid" || report.verdict === "seal-only").length;
  let status = "";
  if (held.length > 0 && !trust) status = w.needTrust;
  else if (trust?.trust) status = results.length > 0 ? w.done(results.length, good) : held.length > 0 ? w.needSeal : "";
  at("status").textContent = status;
}

function take(files) {
  for (const file of files) {
    const same = held.findIndex((one) => one.file.name === file.name);
    if (same >= 0) held.splice(same, 1);
    held.push({ file, kind: null });
  }
  judgeAll();
}

at("files").addEventListener("change", ({ target }) => {
  take([...target.files]);
  target.value = "";
});
at("clear").addEventListener("click", () => {
  held.length = 0;
  round++;
  judged = { trust: null, results: [], lone: [] };
  show();
  at("files").focus();
});
// The whole page takes what is dropped: a file that misses the field must not replace the page.
for (const name of ["dragenter", "dragover"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
window.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) at("drop").classList.remove("over");
});
window.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take([...event.dataTransfer.files]);
});
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    ({ language } = button.dataset);
    show();
  });
}
show();
