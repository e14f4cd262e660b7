// Talks to the API of the same origin.

/** An answer that is not the one asked for; `problem` is the RFC 9457 document. */
export class Problem extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title ?? "the gateway did not say why");
    this.problem = problem;
  }
}

/** GET a JSON document below /api/v1. */
export async function get(path, params = {}, signal) {
  const url = new URL(`/api/v1${path}`, location.origin);
  for (const [name, value] of Object.entries(params)) if (value != null && value !== "") url.searchParams.set(name, value);
  let response;
  try {
    response = await fetch(url, { signal, credentials: "same-origin", headers: { accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ status: 0, detail: "the gateway could not be reached" });
  }
  const body = await response.json().catch(() => ({ status: response.status, detail: `the gateway answered ${response.status}` }));
  if (!response.ok) throw new Problem({ status: response.status, ...body });
  return body;
}

export async function signOut() {
  await fetch("/auth/logout", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
  location.assign("/auth/signed-out");
}
