// Rejects files that are too large or not audio before the browser uploads them.
// UPLOAD_LIMITS = {megabytes, advice} is defined by demo/page.py.

function refuse(event) {
  const note = document.getElementById("refused");
  const files = [...(event.dataTransfer?.files ?? event.target.files ?? [])];
  if (!note || !files.length) return;
  note.textContent = describeProblem(files); // as text: a file name may contain markup
  if (!note.textContent) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === "change") event.target.value = "";
}

function describeProblem(files) {
  const large = files.find((file) => file.size > UPLOAD_LIMITS.megabytes * 1e6);
  if (large) return `${large.name} is ${(large.size / 1e6).toFixed(1)} MB; ${UPLOAD_LIMITS.advice}`;
  const other = files.find((file) => file.type && !file.type.startsWith("audio/"));
  if (other) return `${other.name} is not an audio file; ${UPLOAD_LIMITS.advice}`;
  return "";
}

for (const name of ["change", "drop"]) addEventListener(name, refuse, true);
