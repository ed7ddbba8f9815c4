// Sealing a document from the browser: drop it or choose it, and take the receipt and the .seal home.

import { Refused, form, get, getBytes, post, sha256 } from "./api.js";
import { button, card, complaint, download, el, field, fill, icon, pairs, say } from "./dom.js";
import { bytes, moment, named, number, t } from "./words.js";

/** A place to drop files on, with an input for those who do not drag. */
export function drop(id, words, several, take) {
  const input = el("input", { id, type: "file", multiple: several, class: "file", onchange: () => {
    take([...input.files]);
    input.value = "";
  } });
  const place = el("div", { class: "drop",
    ondragover: (event) => { event.preventDefault(); place.classList.add("over"); },
    ondragleave: () => place.classList.remove("over"),
    ondrop: (event) => {
      event.preventDefault();
      place.classList.remove("over");
      take([...event.dataTransfer.files].slice(0, several ? 100 : 1));
    } },
    el("p", { class: "drop-words" }, words),
    el("p", null, input, el("label", { for: id, class: "button" }, several ? t("chooseFiles") : t("chooseFile"))));
  return place;
}

const sealName = (name) => `${name}.seal`;

/** Downloads the best .seal there is now. */
export async function takeSeal(id, name) {
  download(sealName(name), await getBytes(`/v1/seals/${id}/seal-file`), "application/vnd.bulla.seal+json");
}

function receipt(file, digest, made) {
  const agrees = made.seal !== undefined;
  return el("li", { class: "result", "data-seal": made.id ?? "" },
    el("p", { class: "result-title" }, icon(agrees ? "ok" : "wait"), el("strong", null, file.name), " ", el("span", { class: "soft" }, bytes(file.size))),
    made.queued
      ? el("p", null, t("queuedTold", number(made.position), made.reason))
      : [pairs(
          [t("sealed"), made.replayed ? t("sealedBefore", moment(made.sealedAtMillis)) : moment(made.sealedAtMillis)],
          [t("number"), el("a", { href: `#/seal/${made.id}` }, made.id)],
          [t("mode"), named("mode", made.mode)],
          ["SHA-256", el("code", { class: "digest" }, digest)],
          made.earlier?.length > 0 && [t("earlierSeals"), made.earlier.map((id) => [el("a", { href: `#/seal/${id}` }, id), " "])]),
        el("p", { class: "actions" },
          button(t("saveSeal"), () => takeSeal(made.id, file.name)),
          button(t("saveReceipt"), () => download(`${file.name}.receipt.json`, JSON.stringify(made, null, 2), "application/json")),
          el("a", { class: "plain", href: `#/certificate/${made.id}` }, t("printCertificate")))]);
}

/** Shows it. */
export function sealing(place) {
  const documentId = el("input", { id: "document-id", autocomplete: "off" });
  const note = el("input", { id: "note", autocomplete: "off" });
  const results = el("ul", { class: "results", id: "results" });
  const waiting = [];
  let busy = false;
  const take = async (files) => {
    waiting.push(...files.map((file) => ({ file, id: documentId.value.trim(), note: note.value.trim(), key: crypto.randomUUID() })));
    if (busy) return;
    busy = true;
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const working = el("li", { class: "result" }, icon("wait"), " ", t("sealingFile", next.file.name));
      results.prepend(working);
      await attempt(next, working);
    }
    busy = false;
  };
  const attempt = async (next, working) => {
    try {
      if (next.file.size === 0) throw new Error(t("emptyFile"));
      const digest = await sha256(next.file);
      const metadata = next.note ? JSON.stringify({ note: next.note }) : "";
      const made = await post("/v1/seals", await form(next.file, { documentId: next.id, metadata }), { "Idempotency-Key": next.key });
      // Nothing that was not this file may pass for it.
      if (made.seal && !(await sealedDigest(made.id)).endsWith(digest)) throw new Error(t("otherDigest"));
      working.replaceWith(receipt(next.file, digest, made));
      say(t("sealedFile", next.file.name));
    } catch (error) {
      const again = button(t("tryAgain"), async () => {
        const once = el("li", { class: "result" }, icon("wait"), " ", t("sealingFile", next.file.name));
        failed.replaceWith(once);
        await attempt(next, once);
      });
      const final = error instanceof Refused && [400, 403, 413, 415].includes(error.status);
      const failed = el("li", { class: "result" }, complaint(t("notSealed", next.file.name, error.message)), !final && el("p", { class: "actions" }, again));
      working.replaceWith(failed);
    }
  };
  fill(place, el("h1", null, t("navSeal")), el("p", { class: "lead" }, t("sealLead")),
    card(t("aboutDocument"),
      el("div", { class: "fields" }, field(t("documentId"), documentId, t("documentIdHint")), field(t("noteName"), note, t("noteHint"))),
      drop("file", t("dropHere"), true, take)),
    results);
}

const sealedDigest = async (id) => (await get(`/v1/seals/${id}`)).document.digest;
