// The certificate of a seal: one page to print and file with the paper.
//
// It proves nothing by itself and says so; the code names the seal, so that its .seal is found again.

import { factList, factsOf, interval, opened } from "./facts.js";
import { button, el, fill, pairs } from "./dom.js";
import { bytes, moment, number, t } from "./words.js";

/** Shows it. */
export async function certificate(place, id) {
  const all = await factsOf(id);
  const { seal, report, status } = all;
  const annulled = (seal.relatedBy ?? []).some((one) => one.kind === "annuls");
  const code = el("img", { class: "code", src: `/v1/seals/${id}/code`, alt: t("codeAlt", id), width: "180", height: "180" });
  fill(place,
    el("p", { class: "actions no-print" }, button(t("print"), () => print(), "button"), el("a", { class: "plain", href: `#/seal/${id}` }, t("back"))),
    el("article", { class: "certificate", id: "certificate" },
      el("header", null,
        el("img", { class: "crest", src: "/console/mark.svg", alt: "", width: "56", height: "56" }),
        el("div", null, el("p", { class: "over" }, seal.origin.split("/")[0]), el("h1", null, t("certificateTitle")))),
      annulled && el("p", { class: "stamp" }, t("annulled")),
      el("p", { class: "certificate-lead" }, t("certificateLead", number(seal.index), moment(seal.sealedAtMillis))),
      el("div", { class: "certificate-body" },
        el("div", null,
          el("h2", null, t("aboutDocument")),
          pairs([t("documentId"), opened(seal, "document-id")[0]?.value ?? null],
            [t("mediaType"), seal.document.mediaType],
            [t("size"), seal.document.size === undefined ? null : bytes(seal.document.size)],
            [seal.document.algorithm.toUpperCase(), el("code", { class: "digest" }, seal.document.digest)]),
          el("h2", null, t("whenTitle")), interval(report)),
        el("div", { class: "code-side" }, code, el("p", { class: "soft" }, seal.id))),
      el("h2", null, t("whatHolds")), factList(all),
      el("footer", null, el("p", null, t("provesNothing")), el("p", { class: "soft" }, t("statedAt", moment(Date.now()), status.origin)))));
  await code.decode().catch(() => null);
}
