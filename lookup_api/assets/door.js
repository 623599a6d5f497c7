// Asks the API: with the key where there is one, and problems as errors that say what is wrong.

const KEPT = "pymk key";

/** Keeps what is typed as the key for this tab only. */
export function keepKey(field) {
  field.value = sessionStorage.getItem(KEPT) ?? "";
  field.addEventListener("change", () => sessionStorage.setItem(KEPT, field.value.trim()));
}

/** The answer's JSON. Throws an Error whose message is the problem's detail. */
export async function ask(path, body) {
  const headers = { Accept: "application/json" };
  const key = document.getElementById("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.detail ?? `The server answered ${answer.status}.`);
  return told;
}

/** A new element: attributes as given, children as elements or text; nothing is ever parsed as HTML. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same within an SVG. */
export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Says something in the page's status line; problem: that something is wrong. */
export function say(text, problem = false) {
  const line = document.getElementById("told");
  line.textContent = text;
  line.classList.toggle("problem", problem);
}
