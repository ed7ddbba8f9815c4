// The first page: what the box is doing, and the seals as they are made.
//
// New seals come over the event stream (`/v1/events`); the state is asked for every few seconds and at every change.

import { get, may } from "./api.js";
import { card, complaint, el, fill, pairs, say } from "./dom.js";
import { outage, state } from "./mode.js";
import { by, clock, named, number, span, t } from "./words.js";

const SHOWN = 12;
const STATE_EVERY = 3_000;

function line(seal, isNew) {
  return el("li", { class: isNew ? "new" : null, "data-seal": seal.id },
    el("a", { href: `#/seal/${seal.id}` }, t("sealNumber", number(seal.index))),
    el("span", { class: "soft" }, by(seal.client)),
    el("time", { datetime: new Date(seal.sealedAtMillis).toISOString() }, clock(seal.sealedAtMillis)));
}

/** Shows it; what it returns ends it. */
export async function live(place) {
  const now = el("div", null);
  const list = el("ul", { class: "live", id: "live" });
  const numbers = el("div", null);
  const none = el("p", { class: "soft", id: "live-none" }, t("noSealsYet"));
  fill(place, el("h1", null, t("navLive")), now,
    el("div", { class: "columns" }, card(t("liveTitle"), el("p", { class: "soft" }, t("liveLead")), none, list), card(t("todayTitle"), numbers)),
    may("seal") && el("p", null, el("a", { class: "button", href: "#/new" }, t("navSeal"))));
  let shown = "";
  let ended = false;
  let timer = 0;
  const look = async () => {
    clearTimeout(timer);
    try {
      const status = await get("/v1/status", { background: true });
      if (ended) return;
      const told = JSON.stringify([status.condition, status.mode, status.outage?.outage?.seals, status.outage?.outage?.number, status.outage?.outage?.manifests, status.outage?.failing.map((one) => one.authority), status.outage?.drill]);
      if (told !== shown) {
        if (shown !== "") say(`${named("state", status.condition.state)}. ${named("mode", status.mode)}`);
        shown = told;
        fill(now, state(status), outage(status));
      }
      fill(numbers, pairs(
        [t("sealsSinceStart"), number(status.sealsSinceStart)],
        [t("entriesInLog"), number(status.size)],
        [t("runningFor"), span(status.uptimeSeconds)],
        [t("attestedTo"), status.hardware === "tpm" ? t("ofEntries", number(status.attestedSize), number(status.size)) : t("noTpm")],
        status.anchors && [t("anchoredTo"), t("ofEntries", number(status.anchors.anchoredSize), number(status.size))],
        status.peers && [t("neighboursConnected"), t("ofAll", number(status.peers.neighbours.filter((one) => one.connected).length), number(status.peers.neighbours.length))],
        [t("inQueue"), number(status.queue.depth)]));
    } catch (error) {
      if (!ended && shown !== "silent") {
        shown = "silent";
        fill(now, complaint(error.message));
      }
    }
    if (!ended) timer = setTimeout(look, STATE_EVERY);
  };
  const put = (seal, isNew) => {
    none.hidden = true;
    list.prepend(line(seal, isNew));
    while (list.children.length > SHOWN) list.lastChild.remove();
  };
  // Asked for first: whatever is sealed from here on comes over the stream, even if the list below has it already.
  const from = (await get("/v1/status", { background: true })).size;
  const page = await get(`/v1/seals?limit=${SHOWN}`, { background: true });
  for (const seal of page.seals.reverse()) put(seal, false);
  const known = new Set(page.seals.map((seal) => seal.id));
  const stream = new EventSource(`/v1/events?from=${from}`);
  stream.addEventListener("seal", (event) => {
    const seal = JSON.parse(event.data);
    if (!known.has(seal.id)) put(seal, true);
  });
  stream.addEventListener("condition", look);
  await look();
  return () => {
    ended = true;
    clearTimeout(timer);
    stream.close();
  };
}
