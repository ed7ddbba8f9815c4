// The frame around every page: who is logged in, where one can go, which language is spoken.
//
// Pages are named after the `#`, so that back, forward and bookmarks work without asking the box.

import { anchors } from "./anchors.js";
import { logOut, may, onOver, resume, whoIs } from "./api.js";
import { box } from "./box.js";
import { certificate } from "./certificate.js";
import { charts } from "./charts.js";
import { button, card, complaint, el, fill } from "./dom.js";
import { facts } from "./facts.js";
import { live } from "./live.js";
import { login, password1 } from "./login.js";
import { peers } from "./peers.js";
import { sealing } from "./seal.js";
import { search } from "./search.js";
import { language, named, speak, t } from "./words.js";

/** Name, title, who sees it, what shows it. */
const PAGES = [
  ["live", "navLive", () => true, live],
  ["new", "navSeal", () => may("seal"), sealing],
  ["search", "navSearch", () => true, search],
  ["anchors", "navAnchors", () => may("metrics"), anchors],
  ["peers", "navPeers", () => may("metrics"), peers],
  ["box", "navBox", () => may("metrics"), box],
  ["charts", "navCharts", () => may("metrics"), charts],
];
const OTHERS = {
  seal: [facts, "navSearch"],
  certificate: [certificate, "certificateTitle"],
  password: [(place) => password1(place, () => { location.hash = "#/live"; show(); }), "changePassword"],
};

const root = document.getElementById("page");
let end = null;
let turn = 0;

function header(now) {
  const who = whoIs();
  const pages = PAGES.filter(([, , seen]) => who && seen());
  const leave = async () => {
    await logOut();
    location.hash = "";
    show();
  };
  return el("header", { class: "top" },
    el("a", { class: "skip", href: "#content", onclick: (event) => { event.preventDefault(); document.getElementById("content").focus(); } }, t("skip")),
    el("div", { class: "inner" },
      el("img", { class: "mark", src: "/console/mark.svg", alt: "", width: "32", height: "32" }),
      el("p", { class: "name" }, "Bulla ", el("span", null, t("product"))),
      el("div", { class: "languages", role: "group", "aria-label": t("languageLabel") },
        [["de", "Deutsch"], ["en", "English"]].map(([tag, words]) =>
          el("button", { type: "button", lang: tag, "data-language": tag, "aria-pressed": String(language() === tag), onclick: () => { speak(tag); show(); } }, words))),
      who && el("div", { class: "who" },
        el("p", { id: "who" }, who.name, " ", el("span", { class: "role" }, named("role", who.role))),
        el("a", { href: "#/password" }, t("changePassword")),
        button(t("logOut"), leave, "linklike"))),
    who && el("nav", { "aria-label": t("navLabel") }, el("ul", { class: "inner" }, pages.map(([name, words]) =>
      el("li", null, el("a", { href: `#/${name}`, "aria-current": name === now ? "page" : null }, t(words)))))));
}

const footer = () => el("footer", { class: "bottom" },
  el("p", null, el("a", { href: "/verify" }, t("toVerifier"))),
  el("p", { class: "soft" }, `Bulla ${document.body.dataset.version}`));

/** In place of a page that this person's role is not for: what the role is for, and whom to ask. */
const notForRole = (page) => (place) => {
  const can = ["canRead", may("seal") && "canSeal", may("annul-any") ? "canAnnulAny" : may("seal") && "canAnnulOwn", may("anchor") && "canAnchor", may("metrics") && "canLook", may("lock") && "canOperate"];
  fill(place, el("h1", null, t("refusedTitle")),
    el("p", { class: "lead", id: "refused" }, t("refusedTold", t(page), named("role", whoIs().role))),
    card(t("whatRoleMay"), el("ul", { class: "plain-list" }, can.filter(Boolean).map((word) => el("li", null, t(word))))),
    el("p", null, t("refusedAsk")),
    el("p", null, el("a", { class: "button", href: "#/live" }, t("navLive"))));
};

/** Draws the page that the address names. */
async function show(note) {
  const mine = ++turn;
  if (end) end();
  end = null;
  const [, name = "", ...rest] = location.hash.split("/");
  const place = el("main", { id: "content", tabindex: "-1" });
  if (!whoIs()) {
    document.title = `${t("loginTitle")} \u2013 Bulla`;
    fill(root, header(""), place, footer());
    login(place, () => { show(); }, note);
    root.dataset.shown = "login";
    return;
  }
  const page = PAGES.find(([one]) => one === name);
  const refused = page !== undefined && !page[2]();
  const [draw, title] = refused ? [notForRole(page[1]), "refusedTitle"] : page ? [page[3], page[1]] : OTHERS[name] ?? [live, "navLive"];
  const now = refused ? "refused" : page ? name : name in OTHERS ? "" : "live";
  document.title = `${t(title)} \u2013 Bulla`;
  delete root.dataset.shown;
  fill(root, header(now), place, footer());
  try {
    const ending = await draw(place, decodeURIComponent(rest.join("/")));
    if (mine !== turn) {
      ending?.();
      return;
    }
    end = ending ?? null;
  } catch (error) {
    if (mine !== turn) return;
    fill(place, el("h1", null, t(title)), complaint(error.message), el("p", null, button(t("tryAgain"), () => show())));
  }
  root.dataset.shown = `${now || name}-${language()}`;
}

onOver(() => show(t("sessionOver")));
addEventListener("hashchange", () => {
  scrollTo(0, 0);
  show().then(() => document.getElementById("content")?.focus({ preventScroll: true }));
});
document.documentElement.lang = language();
await resume();
await show();
