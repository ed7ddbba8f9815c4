// Neighbours: who holds copies of this log, who has found it consistent, and whose log is held here.

import { get } from "./api.js";
import { card, el, fill, table } from "./dom.js";
import { moment, named, number, span, t } from "./words.js";

const sign = (good, words) => el("span", { class: `tag ${good ? "good" : "wait"}` }, words);

/** Shows it. */
export async function peers(place) {
  const status = await get("/v1/status");
  const all = status.peers;
  if (!all) {
    fill(place, el("h1", null, t("navPeers")), card(t("noPeersTitle"), el("p", null, t("noPeers"))));
    return;
  }
  const rows = all.neighbours.map((one) => [
    el("code", { class: "digest" }, one.origin),
    one.connected ? sign(true, t("connected")) : sign(false, one.leftAloneSeconds ? t("leftAlone", span(one.leftAloneSeconds)) : t("notConnected")),
    t("ofEntries", number(one.mirrored), number(status.size)),
    t("ofEntries", number(one.witnessed), number(status.size)),
    one.copy.frozen ? el("span", { class: "tag bad" }, t("forked")) : t("ofEntries", number(one.copy.size), number(one.copy.known)),
    [one.attested.state === "fresh" && one.attested.key === "software" ? t("attestedFiles") : named("attested", one.attested.state), one.attested.last ? el("p", { class: "soft" }, moment(one.attested.last)) : ""],
    one.trouble ?? "",
  ]);
  fill(place, el("h1", null, t("navPeers")), el("p", { class: "lead" }, t("peersLead")),
    all.trouble && card(t("trouble"), el("p", null, all.trouble)),
    card(t("neighbours"), rows.length === 0 ? el("p", null, t("noNeighbour"))
      : table(t("neighbours"), [t("log"), t("connection"), t("holdsOurs"), t("witnessedOurs"), t("weHold"), t("itsTpm"), t("trouble")], rows)),
    all.keptOut.length > 0 && card(t("keptOut"), el("ul", { class: "plain-list" }, all.keptOut.map((one) => el("li", null, el("code", null, one.origin), ": ", one.why)))),
    all.rosters.length > 0 && card(t("rosters"), table(t("rosters"), [t("fleet"), t("version"), t("came")],
      all.rosters.map((one) => [one.fleet, number(one.version), moment(one.came)]))));
}
