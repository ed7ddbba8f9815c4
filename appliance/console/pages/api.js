// The box's API: every page asks here, and nowhere else.
//
// The session is a cookie that no script sees. What changes something carries the session's proof besides; what a page asks by
// itself says so, and then does not keep the session alive.

import { t } from "./words.js";

let session = null;
let over = () => {};

export const whoIs = () => session;
export const may = (right) => session !== null && session.rights.includes(right);

/** What to do when the session has ended. */
export function onOver(act) {
  over = act;
}

/** A refusal of the box, with its own words. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? t("noAnswer"));
    this.status = status;
    this.kind = String(problem?.type ?? "").split(":").pop();
  }
}

async function ask(method, path, { headers = {}, body, background = false, quiet = false } = {}) {
  const sent = { ...headers };
  if (session && method !== "GET") sent["Bulla-Session-Proof"] = session.proof;
  if (background) sent["Bulla-Background"] = "1";
  let answer;
  try {
    answer = await fetch(path, { method, headers: sent, body, credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new Refused(0, { detail: t("boxSilent"), type: "silent" });
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => null);
  if (answer.status === 401 && session && !quiet) {
    session = null;
    over();
  }
  throw new Refused(answer.status, problem);
}

export const get = async (path, options) => (await ask("GET", path, options)).json();
export const getText = async (path, options) => (await ask("GET", path, options)).text();
export const getBytes = async (path, options) => new Uint8Array(await (await ask("GET", path, options)).arrayBuffer());
export const post = async (path, body, headers) => (await ask("POST", path, { body, headers })).json();
export const postJson = (path, body) => post(path, JSON.stringify(body), { "Content-Type": "application/json" });

async function begun(path, body) {
  session = null;
  const answer = await ask("POST", path, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, quiet: true });
  session = await answer.json();
}

export const logIn = (name, password) => begun("/v1/session", { name, password });
export const choosePassword = (name, current, password) => begun("/v1/session/password", { name, current, password });

/** Whether somebody is logged in already. */
export async function resume() {
  // Without a cookie this is a 401, which is an answer like any other.
  const answer = await fetch("/v1/session", { credentials: "same-origin", cache: "no-store" }).catch(() => null);
  session = answer?.ok ? await answer.json() : null;
  return session !== null;
}

export async function logOut() {
  await ask("POST", "/v1/session/end", { quiet: true }).catch(() => null);
  session = null;
}

/** SHA-256 of a file, computed here: the file does not leave the browser. */
export async function sha256(file) {
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A file as the box takes it in a form. Reading it here first says early whether it can be read. */
export async function form(file, fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value) data.append(name, value);
  data.append("document", file, file.name);
  return data;
}
