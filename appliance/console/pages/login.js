// Logging in, and choosing a password: with a one-time code for the first time, with the one before later on.

import { choosePassword, logIn, whoIs } from "./api.js";
import { button, complaint, el, field, fill, say } from "./dom.js";
import { t } from "./words.js";

function shell(title, lead, ...children) {
  return el("div", { class: "narrow" }, el("h1", null, title), lead && el("p", { class: "lead" }, lead), el("div", { class: "card" }, children));
}

function sender(words, work, done) {
  const wrong = el("div", null);
  const submit = el("button", { type: "submit", class: "button" }, words);
  const onsubmit = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    fill(wrong);
    try {
      await work();
      done();
    } catch (error) {
      fill(wrong, complaint(error.message));
    }
    submit.disabled = false;
  };
  return { wrong, submit, onsubmit };
}

/** The form to log in. */
export function login(place, done, note) {
  const name = el("input", { id: "name", name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true });
  const password = el("input", { id: "password", type: "password", name: "password", autocomplete: "current-password", required: true });
  const { wrong, submit, onsubmit } = sender(t("logIn"), () => logIn(name.value.trim(), password.value), done);
  fill(place, shell(t("loginTitle"), t("loginLead"),
    note && el("p", { class: "note", role: "status" }, note),
    el("form", { onsubmit, id: "login" }, wrong, field(t("name"), name), field(t("password"), password), el("p", { class: "actions" }, submit)),
    el("p", { class: "after" }, t("firstTime"), " ", button(t("haveCode"), () => password1(place, done), "linklike"))));
  name.focus();
}

/** The form to choose a password. Whoever is logged in changes the one before. */
export function password1(place, done) {
  const who = whoIs();
  const name = el("input", { id: "name", name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true, value: who?.name ?? "", readonly: who !== null });
  const current = el("input", { id: "current", name: "current", type: who ? "password" : "text", autocomplete: who ? "current-password" : "one-time-code", autocapitalize: "none", spellcheck: "false", required: true });
  const fresh = el("input", { id: "fresh", type: "password", name: "new-password", autocomplete: "new-password", required: true, minlength: "12" });
  const again = el("input", { id: "again", type: "password", name: "new-password-again", autocomplete: "new-password", required: true });
  const work = async () => {
    if (fresh.value !== again.value) throw new Error(t("notTheSame"));
    await choosePassword(name.value.trim(), current.value.trim(), fresh.value);
    say(t("passwordChosen"));
  };
  const { wrong, submit, onsubmit } = sender(t("choosePassword"), work, done);
  fill(place, shell(who ? t("changePassword") : t("firstTitle"), who ? null : t("firstLead"),
    el("form", { onsubmit, id: "choose" }, wrong,
      field(t("name"), name),
      field(who ? t("passwordSoFar") : t("code"), current, who ? null : t("codeHint")),
      field(t("newPassword"), fresh, t("passwordHint")),
      field(t("newAgain"), again),
      el("p", { class: "actions" }, submit, !who && button(t("back"), () => login(place, done))))));
  (who ? current : name).focus();
}
