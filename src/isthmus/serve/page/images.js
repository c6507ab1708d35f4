// Images from outside: pasted, dropped or chosen. The page never fetches an address.

import { $ } from "./dom.js";

const SHRUNK = 1600;
const LARGE = 4 << 20;

function imageIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

// Of a large file a smaller copy is sent: the model looks at far fewer pixels than a camera's picture has.
export async function fit(file, limits) {
  if (file.size <= Math.min(limits.bytes, LARGE)) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file; // the server says what is wrong with it
  }
  const scale = Math.min(1, SHRUNK / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const small = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return small ? new File([small], file.name || "image.jpg", { type: "image/jpeg" }) : file;
}

export function takeImages(take, refuse) {
  const sorry = () => refuse("That is no image. Paste, drop or choose a picture file, such as a PNG or a JPEG.");
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    event.target.value = ""; // the same file again is a change, too
    if (file) take(file);
  });

  document.addEventListener("paste", (event) => {
    const file = imageIn(event.clipboardData);
    if (file) take(file);
    else if (event.clipboardData?.files.length) sorry();
    else return;
    event.preventDefault();
  });

  const drop = $("drop");
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    drop.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    drop.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const file = imageIn(event.dataTransfer);
    if (file) take(file);
    else sorry();
  });
}
