const decode = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
for (const maps of document.querySelectorAll("[data-kept]")) {
  const weights = decode(maps.dataset.weights), kept = decode(maps.dataset.kept);
  const entries = maps.querySelectorAll("[data-weight]");
  const input = maps.querySelector("input"), output = maps.querySelector("output");
  const bytesPerEpoch = Math.ceil(entries.length / 8); // of `kept`, one bit per entry
  input.addEventListener("input", () => {
    const epoch = input.value - 1;
    output.textContent = `${input.value} of ${input.max}`;
    entries.forEach((entry, index) => {
      const weight = weights[epoch * entries.length + index];
      entry.textContent = weight;
      entry.style.setProperty("--weight", weight);
      entry.classList.toggle("kept", kept[epoch * bytesPerEpoch + (index >> 3)] >> (7 - index % 8) & 1);
    });
  });
  input.parentElement.hidden = input.max < 2;
}
