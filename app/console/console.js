// An evidence id leads to its row; Gradio's <base> would turn a plain #fragment into another page.
const goToEvidence = (event) => {
  if (event.type === "keydown" && event.key !== "Enter") return;
  const link = event.target.closest?.("[data-goto]");
  if (!link) return;
  const row = document.querySelector(`[data-evidence="${CSS.escape(link.dataset.goto)}"]`);
  row?.closest("details")?.setAttribute("open", "");
  row?.scrollIntoView({ block: "center" });
  row?.animate([{ backgroundColor: "var(--accent-soft)" }, {}], 1500);
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
