const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
for (const heat of document.querySelectorAll("[data-kept]")) {
  const shares = bytes(heat.dataset.shares), kept = bytes(heat.dataset.kept);
  const cells = heat.querySelectorAll("[data-share]");
  const input = heat.querySelector("input"), output = heat.querySelector("output");
  const packed = Math.ceil(cells.length / 8);
  input.addEventListener("input", () => {
    const epoch = input.value - 1;
    output.textContent = `${input.value} of ${input.max}`;
    cells.forEach((cell, at) => {
      const share = shares[epoch * cells.length + at];
      cell.textContent = share;
      cell.style.setProperty("--share", share);
      cell.classList.toggle("kept", kept[epoch * packed + (at >> 3)] >> (7 - at % 8) & 1);
    });
  });
  input.parentElement.hidden = input.max < 2;
}
