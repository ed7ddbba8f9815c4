// Puts reports on the page. Whatever comes from a file is text, never markup.

let language = (navigator.language ?? "en").toLowerCase().startsWith("de") ? "de" : "en";
const words = () => WORDS[language];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const DRAWN = {
  good: ["M4 12.5l5 5L20 6.5"], bad: ["M5 5l14 14", "M19 5L5 19"], open: ["M12 4v10", "M12 19v.5"],
};
function icon(kind) {
  const space = document.querySelector("svg").namespaceURI;
  const drawing = document.createElementNS(space, "svg");
  for (const [name, value] of [["viewBox", "0 0 24 24"], ["class", "icon"], ["aria-hidden", "true"], ["focusable", "false"]]) {
    drawing.setAttribute(name, value);
  }
  for (const line of DRAWN[kind]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", line);
    drawing.append(path);
  }
  return drawing;
}

// Milliseconds since 1970 in UTC; a time beyond the calendar as the number it is.
function time(millis) {
  const number = Number(millis);
  if (number > 253402300799999) return `${millis} ms`;
  const shown = new Intl.DateTimeFormat(language === "de" ? "de-DE" : "en-GB", {
    timeZone: "UTC", day: "2-digit", month: "long", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  }).format(new Date(number));
  return `${shown} UTC`;
}

// What stands in a sentence: times in words, the rest as it is.
const MILLIS = ["time", "invalidFrom", "began", "after", "before"], MICROS = ["earliest", "latest", "asOf", "at"];
function forPeople(args) {
  return Object.fromEntries(Object.entries(args).map(([name, value]) => {
    if (MILLIS.includes(name) && value !== null) return [name, time(value)];
    if (MICROS.includes(name)) return [name, time(value / 1000n)];
    return [name, value];
  }));
}

const KINDS = { valid: "good", "seal-only": "good", "other-document": "bad", refused: "bad" };

function checkLine({ check, outcome, say, args, why }) {
  const w = words();
  const kind = { passed: "good", failed: "bad", "not judged": "open" }[outcome];
  let said;
  if (outcome === "failed") said = say === "newer" ? w.newer : say === "indeterminate" ? w.indeterminate : w.failed[check] ?? w.failedAny;
  else said = w.says[check][say];
  if (typeof said === "function") said = said(forPeople(args));
  return make("li", { class: outcome.replace(" ", "-") },
    icon(kind),
    make("span", { class: "what" }, make("span", {}, w.checks[check]), " ", make("span", { class: "outcome" }, w.outcome[outcome])),
    make("p", { class: "said" }, said),
    why ? make("p", { class: "why" }, `${w.reason}: `, make("span", { lang: "en" }, why)) : null);
}

function rows(pairs) {
  return make("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined).map(([name, value, strong]) => [
    make("dt", {}, name), make("dd", strong ? { class: "strong" } : {}, value),
  ]).flat());
}

function provenRows({ interval, seal, facts, opened }) {
  const w = words();
  const { token, body, origin } = seal;
  const between = [interval.after === null ? w.noAfter : w.after(time(interval.after)), interval.before === null ? w.noBefore : w.before(time(interval.before))];
  const size = body.size === undefined ? w.unknownSize : w.bytes(body.size);
  const pairs = [
    [w.interval, between.join("; "), true],
    [w.local, w.localNote(time(interval.local.unixMillis), interval.local.uncertaintyMillis ?? null)],
    [w.fleet, origin.fleet],
    [w.branch, make("code", {}, origin.box)],
    [w.entry, `${token.index}`],
    [w.mode, w.modes[token.mode] + (token.drill ? ` (${w.drill})` : "")],
    [w.hardware, w.residencies[token.residency]],
    [w.content, `${body.mediaType}, ${size}, ${w[body.observation]}`],
    [w.client, body.client.id],
    [w.factsRow, facts.map((fact) => factName(w, fact)).join(", ") || w.none],
  ];
  for (const { name, value, assurance } of opened) pairs.push([`${w.opened}: ${name}`, `${value} (${w.assured[assurance]})`]);
  return pairs;
}

// A seal's result. `names` are the files it was about.
function resultCard({ report, names }) {
  const w = words();
  const [title, sentence] = w.verdicts[report.verdict];
  const kind = KINDS[report.verdict] ?? "open";
  const printer = make("button", { type: "button", class: "plain" }, w.print);
  printer.addEventListener("click", () => window.print());
  const proven = report.seal ? [make("h3", {}, w.factsTitle), rows(provenRows(report))] : [];
  const special = report.seal ? make("details", {}, make("summary", {}, w.details), rows([
    [w.log, make("code", {}, report.seal.origin.name)],
    [`${w.digest} (${report.seal.body.algorithm})`, make("code", {}, hexText(report.seal.body.digest))],
    [w.leaf, make("code", {}, hexText(report.seal.token.leafHash))],
  ])) : null;
  return make("article", { class: "card", "data-verdict": report.verdict },
    make("div", { class: `verdict ${kind}` }, icon(kind), make("div", {},
      make("h2", {}, title), make("p", {}, sentence),
      make("p", { class: "file" }, `${names.document ?? w.documentNone} · ${names.seal}`))),
    proven,
    make("h3", {}, w.checksTitle),
    make("ol", { class: "checks" }, report.checks.map(checkLine)),
    special,
    make("p", {}, printer));
}

function hexText(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function trustCard({ name, trust, refused, newer }) {
  const w = words();
  if (refused !== undefined) {
    return make("section", { class: "card" },
      make("div", { class: "verdict bad" }, icon("bad"), make("div", {},
        make("h2", {}, newer ? w.trustNewer : w.trustBad), make("p", { lang: "en" }, refused), make("p", { class: "file" }, name))));
  }
  const since = time(trust.issuedMillis) + (trust.roster === null ? "" : `, ${w.roster(trust.roster)}`);
  return make("section", { class: "card", "aria-labelledby": "trust-title" },
    make("h2", { id: "trust-title" }, w.trustTitle),
    make("p", { class: "small" }, w.fingerprint),
    make("p", { class: "fingerprint" }, trust.fingerprint),
    make("p", { class: "small" }, w.readOut),
    rows([[w.file, name], [w.fleet, trust.fleet], [w.written, since]]));
}

// A document that nobody can say anything of.
function loneCard(name) {
  const w = words();
  return make("article", { class: "card" },
    make("div", { class: "verdict open" }, icon("open"), make("div", {},
      make("h2", {}, w.noSeal), make("p", {}, w.needSeal), make("p", { class: "file" }, name))));
}

// A fact that counts boxes says how many.
function factName(w, fact) {
  const [, what, count] = /^(mirrored|witnessed)\((\d+)\)$/.exec(fact) ?? [];
  return what ? w.countedFacts[what](Number(count)) : w.factNames[fact];
}
