// Finding seals: by the file itself (its digest is computed here), by document id, by person, by time.

import { get, sha256 } from "./api.js";
import { button, card, complaint, el, field, fill, say, table } from "./dom.js";
import { drop } from "./seal.js";
import { by, bytes, moment, number, t } from "./words.js";

function row(seal) {
  const told = (field) => seal.openings.filter((one) => one.field === field).map((one) => one.value).join(", ");
  const annulled = (seal.relatedBy ?? []).some((one) => one.kind === "annuls");
  return [
    el("a", { href: `#/seal/${seal.id}` }, number(seal.index)),
    moment(seal.sealedAtMillis),
    seal.erased ? t("erased") : told("document-id") || "\u2013",
    told("user") || by(seal.client),
    seal.size === undefined ? "\u2013" : bytes(seal.size),
    annulled ? el("span", { class: "tag bad" }, t("annulled")) : "",
  ];
}

/** Shows it. */
export function search(place) {
  const documentId = el("input", { id: "search-id", autocomplete: "off" });
  const user = el("input", { id: "search-user", autocomplete: "off", autocapitalize: "none" });
  const from = el("input", { id: "search-from", type: "datetime-local" });
  const to = el("input", { id: "search-to", type: "datetime-local" });
  const found = el("div", { id: "found" });
  const ask = async (query, words) => {
    const rows = [];
    const more = async (cursor) => {
      try {
        const asked = new URLSearchParams({ ...query, limit: "25", ...(cursor ? { cursor } : {}) });
        const page = await get(`/v1/seals?${asked}`);
        rows.push(...page.seals.map(row));
        const count = rows.length === 0 ? t("nothingFound") : t("foundMany", number(rows.length));
        fill(found, el("h2", null, words), el("p", { id: "found-count", "data-found": rows.length }, count),
          rows.length > 0 && table(t("foundTitle"), [t("number"), t("sealed"), t("documentId"), t("by"), t("size"), t("remark")], rows),
          page.next && el("p", { class: "actions" }, button(t("more"), () => more(page.next))));
        say(count);
      } catch (error) {
        fill(found, complaint(error.message));
      }
    };
    await more(null);
  };
  const submit = (event) => {
    event.preventDefault();
    const query = {};
    if (documentId.value.trim()) query.documentId = documentId.value.trim();
    if (user.value.trim()) query.user = user.value.trim();
    if (from.value) query.from = String(new Date(from.value).getTime());
    if (to.value) query.to = String(new Date(to.value).getTime() + 60_000);
    ask(query, t("foundTitle"));
  };
  const byFile = async ([file]) => {
    if (!file) return;
    fill(found, el("p", null, t("computing", file.name)));
    try {
      await ask({ digest: `sha-256:${await sha256(file)}` }, t("sealsOf", file.name));
    } catch (error) {
      fill(found, complaint(error.message));
    }
  };
  fill(place, el("h1", null, t("navSearch")), el("p", { class: "lead" }, t("searchLead")),
    el("div", { class: "columns" },
      card(t("searchByFile"), drop("search-file", t("dropSearch"), false, byFile), el("p", { class: "soft" }, t("staysHere"))),
      card(t("searchByWords"), el("form", { onsubmit: submit, id: "search" },
        field(t("documentId"), documentId), field(t("person"), user),
        el("div", { class: "fields" }, field(t("from"), from), field(t("until"), to)),
        el("p", { class: "actions" }, el("button", { type: "submit", class: "button" }, t("find")))))),
    found);
}
