// One seal: what it says, which facts hold, and annulling it when it was a mis-scan.
//
// What holds is what the box's verifier says of the .seal as it is now (`POST /v1/verify`), and which neighbours say that they
// hold the log so far (`/v1/status`).

import { form, get, getBytes, may, post, whoIs } from "./api.js";
import { button, card, complaint, download, el, field, fill, icon, pairs, say } from "./dom.js";
import { takeSeal } from "./seal.js";
import { by, bytes, moment, named, number, span, t } from "./words.js";

const SEAL = "application/vnd.bulla.seal+json";

/** Everything that the pages show of one seal. */
export async function factsOf(id) {
  const seal = await get(`/v1/seals/${id}`);
  const [report, status] = await Promise.all([
    getBytes(`/v1/seals/${id}/seal-file`).then((file) => post("/v1/verify", file, { "Content-Type": SEAL })),
    get("/v1/status"),
  ]);
  const holding = (what) => (status.peers?.neighbours ?? []).filter((one) => one[what] > seal.index);
  const anchored = status.anchors !== undefined && status.anchors.anchoredSize > seal.index;
  return { seal, report, status, mirrored: holding("mirrored"), witnessed: holding("witnessed"), anchored: anchored || report.facts.includes("anchored") };
}

/** What the openings say, by field. */
export const opened = (seal, what) => seal.document.openings.filter((one) => one.field === what);

function fact(key, state, told) {
  const sign = { yes: "ok", wait: "wait", no: "none", bad: "bad" }[state];
  return el("li", { class: `fact ${state}`, "data-fact": key, "data-holds": state === "yes" ? "yes" : "no" },
    icon(sign), el("div", null, el("p", { class: "fact-name" }, named("fact", key)), el("p", null, told)));
}

const short = (origin) => String(origin).split("/").slice(0, 2).map((part) => part.slice(0, 24)).join("/");

/** The facts as a list. */
export function factList({ report, status, mirrored, witnessed, anchored }) {
  const genuine = report.facts.includes("sealed");
  const peers = status.peers !== undefined;
  const names = (list) => list.map((one) => short(one.origin)).join(", ");
  return el("ul", { class: "facts", id: "facts", "data-verdict": report.verdict },
    fact("sealed", genuine ? "yes" : "bad", genuine ? t("factSealedYes") : report.sentence),
    report.facts.includes("attested") ? fact("attested", "yes", t("factAttestedYes"))
      : status.hardware === "tpm" ? fact("attested", "wait", t("factAttestedWait")) : fact("attested", "no", t("factAttestedNo")),
    mirrored.length > 0 ? fact("mirrored", "yes", t("factMirroredYes", number(mirrored.length), names(mirrored)))
      : fact("mirrored", peers ? "wait" : "no", peers ? t("factMirroredWait") : t("factNoPeers")),
    witnessed.length > 0 ? fact("witnessed", "yes", t("factWitnessedYes", number(witnessed.length), names(witnessed)))
      : fact("witnessed", peers ? "wait" : "no", peers ? t("factWitnessedWait") : t("factNoPeers")),
    anchored ? fact("anchored", "yes", t("factAnchoredYes", number(status.anchors?.operatorsNeeded ?? 1)))
      : status.anchors ? fact("anchored", "wait", t("factAnchoredWait")) : fact("anchored", "no", t("factAnchoredNo")));
}

/** When it was sealed, as far as it is proven. */
export function interval(report) {
  const proven = report.interval;
  if (!proven) return null;
  const local = proven.localUncertaintyMillis === null
    ? t("localUnknown", moment(proven.localMillis))
    : t("localKnown", moment(proven.localMillis), span(Math.max(1, proven.localUncertaintyMillis / 1_000)));
  return pairs(
    [t("notBefore"), proven.notBeforeMillis === null ? t("notProven") : moment(proven.notBeforeMillis)],
    [t("notAfter"), proven.notAfterMillis === null ? t("notProven") : moment(proven.notAfterMillis)],
    [t("boxClock"), local]);
}

const mayAnnul = (seal) => may("annul-any") ||
  (may("seal") && opened(seal, "user").some((one) => one.assurance === "authenticated" && one.value === whoIs().name));

function annulment(seal, again) {
  const reason = el("input", { id: "reason", required: true, autocomplete: "off", maxlength: "200" });
  const wrong = el("div", null);
  const sure = el("button", { type: "submit", class: "button danger", id: "annul" }, t("annulNow"));
  const key = crypto.randomUUID();
  const onsubmit = async (event) => {
    event.preventDefault();
    sure.disabled = true;
    try {
      // The annulment is a document of its own, so that it has a seal of its own: what was wrong, and why.
      const lines = [t("annulDocument"), "", `seal: ${seal.id}`, `leafHash: ${seal.leafHash}`, `reason: ${reason.value.trim()}`, `person: ${whoIs().name}`, `request: ${key}`, ""];
      const note = new File([lines.join("\n")], `annulment-${seal.id}.txt`, { type: "text/plain" });
      const metadata = JSON.stringify({ reason: reason.value.trim() });
      const made = await post("/v1/seals", await form(note, { annuls: seal.id, metadata }), { "Idempotency-Key": key });
      if (!made.queued) download(note.name, note, "text/plain");
      say(t("annulDone"));
      again();
    } catch (error) {
      fill(wrong, complaint(error.message));
      sure.disabled = false;
    }
  };
  return el("form", { onsubmit, id: "annulment" }, wrong, el("p", null, t("annulTold")), field(t("reason"), reason, t("reasonHint")), el("p", { class: "actions" }, sure));
}

/** Shows it. */
export async function facts(place, id) {
  const all = await factsOf(id);
  const { seal, report } = all;
  const again = () => facts(place, id);
  const annulledBy = (seal.relatedBy ?? []).filter((one) => one.kind === "annuls");
  const user = opened(seal, "user")[0];
  const annul = el("div", null);
  const anchorNow = async () => {
    try {
      const answer = await post(`/v1/seals/${id}/anchor`, null);
      say(answer.anchored ? t("anchoredAlready") : t("anchorAsked"));
      again();
    } catch (error) {
      fill(annul, complaint(error.message));
    }
  };
  fill(place,
    el("p", { class: "crumb" }, el("a", { href: "#/search" }, t("navSearch"))),
    el("h1", null, t("sealNumber", number(seal.index))),
    annulledBy.length > 0 && el("div", { class: "state bad", id: "annulled" }, icon("bad"), el("div", null, el("p", { class: "state-title" }, t("annulled")),
      el("p", null, t("annulledBy"), " ", annulledBy.map((one) => [el("a", { href: `#/seal/${one.id}` }, one.id), " "])))),
    el("div", { class: "columns" },
      card(t("whatHolds"), factList(all)),
      el("div", null,
        card(t("whenTitle"), interval(report) ?? el("p", null, report.sentence)),
        card(t("aboutDocument"), pairs(
          [t("documentId"), opened(seal, "document-id")[0]?.value ?? (seal.erased ? t("erased") : null)],
          [t("person"), user ? (user.assurance === "authenticated" ? t("personKnown", user.value) : t("personSaid", user.value)) : null],
          ...opened(seal, "metadata").map((one) => [one.name, one.value]),
          [t("mediaType"), seal.document.mediaType],
          [t("size"), seal.document.size === undefined ? null : bytes(seal.document.size)],
          [t("sealedFrom"), by(seal.document.client)],
          [t("mode"), named("mode", seal.mode)],
          seal.document.relations.length > 0 && [t("refersTo"), seal.document.relations.map((one) => el("span", null, `${named("relation", one.kind)} ${one.leafHash.slice(0, 16)} `))],
          [seal.document.algorithm.toUpperCase(), el("code", { class: "digest" }, seal.document.digest)])))),
    card(t("whatToDo"),
      el("p", { class: "actions" },
        button(t("saveSeal"), () => takeSeal(seal.id, seal.id)),
        el("a", { class: "plain", href: `#/certificate/${seal.id}` }, t("printCertificate")),
        el("a", { class: "plain", href: "/verify" }, t("toVerifier")),
        may("anchor") && all.status.anchors && !all.anchored && button(t("anchorNow"), anchorNow),
        mayAnnul(seal) && annulledBy.length === 0 && button(t("annul"), () => {
          fill(annul, annulment(seal, again));
          annul.querySelector("input").focus();
        }, "plain danger")),
      annul,
      el("details", null, el("summary", null, t("forSpecialists")),
        el("p", null, report.sentence),
        pairs([t("leafHash"), el("code", { class: "digest" }, seal.leafHash)], [t("log"), el("code", { class: "digest" }, seal.origin)],
          [t("epoch"), number(seal.epoch)], [t("residency"), seal.residency]),
        el("ul", { class: "checks" }, report.checks.map((one) => el("li", null, el("code", null, one.check), " ", one.outcome, " ", el("span", { class: "soft" }, one.detail)))))));
}
