// Calls to the server. Whatever goes wrong comes out as a Failure whose message is a sentence for people.

const KEY = "isthmus-token";
const LONGEST = 45_000;

export class Failure extends Error {
  constructor(sentence, { status = 0, code = "", wait = 0 } = {}) {
    super(sentence);
    Object.assign(this, { status, code, wait });
  }
}

export function useToken(token) {
  sessionStorage.setItem(KEY, token);
}

function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function send(path, options) {
  try {
    return await fetch(path, { ...options, credentials: "same-origin", signal: AbortSignal.timeout(LONGEST) });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Failure("The server took too long to answer.", { code: "timeout" });
    throw new Failure("The server can't be reached.", { code: "unreachable" });
  }
}

async function failed(response) {
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch {
    // A proxy in between answers in its own words; the status has to do.
  }
  const sentence = told.reason || `The server answered with an error (${response.status}).`;
  let wait = 0;
  if (response.status === 429) {
    wait = Number(response.headers.get("Retry-After"));
    if (!(wait > 0)) wait = 1;
  }
  return new Failure(sentence, { status: response.status, code: told.code ?? "", wait: Math.min(wait, 60) });
}

export async function call(path, { method = "GET", json, form } = {}) {
  const options = { method, headers: headers() };
  if (json !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(json);
  }
  if (form) options.body = form;
  const response = await send(path, options);
  if (!response.ok) throw await failed(response);
  try {
    return await response.json();
  } catch {
    throw new Failure("The server's answer broke off.", { code: "broken" });
  }
}

export const catalog = () => call("api/catalog");
export const searchFor = (body) => call("api/search", { method: "POST", json: body });
export const mark = (search, item, right) =>
  call("api/feedback", { method: "POST", json: { search, item, right } });

export function searchImage(image, options) {
  const form = new FormData();
  form.append("image", image, image.name || "image.png");
  form.append("options", JSON.stringify(options));
  return call("api/search/image", { method: "POST", form });
}

// An <img> can't send a token: with one, the picture is fetched and shown from memory.
export async function showPicture(img, url) {
  img.dataset.wanted = url;
  if (!sessionStorage.getItem(KEY)) {
    img.src = url;
    return;
  }
  try {
    const response = await send(url, { headers: headers() });
    if (!response.ok) throw await failed(response);
    const shown = URL.createObjectURL(await response.blob());
    const free = () => URL.revokeObjectURL(shown);
    img.addEventListener("load", free, { once: true });
    img.addEventListener("error", free, { once: true });
    if (img.dataset.wanted === url) img.src = shown;
    else free();
  } catch {
    if (img.dataset.wanted === url) img.dispatchEvent(new Event("error"));
  }
}
