// An evidence id leads to its row; Gradio's <base> would turn a plain #fragment into another page.
// Whoever goes there, or opens something in a row, has opened that evidence: the page records it, once.
const opened = new Set();
const goToEvidence = (event) => {
  if (event.type === "keydown" && event.key !== "Enter") return;
  const link = event.target.closest?.("[data-goto]");
  const row = link
    ? document.querySelector(`[data-evidence="${CSS.escape(link.dataset.goto)}"]`)
    : event.target.closest?.("[data-evidence]");
  if (!row) return;
  if (!opened.has(row.dataset.evidence)) {
    opened.add(row.dataset.evidence);
    row.dispatchEvent(new CustomEvent("evidence", { bubbles: true, detail: row.dataset.evidence }));
  }
  if (!link) return;
  row.closest("details")?.setAttribute("open", "");
  row.querySelector("details")?.setAttribute("open", "");
  row.scrollIntoView({ block: "center" });
  row.animate([{ backgroundColor: "var(--accent-soft)" }, {}], 1500);
};
document.addEventListener("click", goToEvidence);
document.addEventListener("keydown", goToEvidence);

// When the session has ended, the reload shows the page that says how to sign in, instead of one error per tick.
const ask = window.fetch;
window.fetch = async (...request) => {
  const answer = await ask(...request);
  if (answer.status === 401) window.location.reload();
  return answer;
};
