// Draws of one voxel in pairs; which voxel, a reader chooses on the map. Every string of the data becomes text, never markup.
(() => {
  const at = id => document.getElementById(id);
  const data = JSON.parse(at("pair-data").textContent);
  const map = at("pair-map"), plot = at("pair-plot"), said = at("pair-said"), choice = at("pair-slices");
  const n = data.names.length, cell = Math.min(150, 500 / n), left = 62, inner = 6, drawn = cell - 2 * inner;
  const minus = text => text.replace("-", "−");
  const near = (x, span) => minus(x.toFixed(Math.min(8, Math.max(0, Math.ceil(1 - Math.log10(span || 1))))));
  const made = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  // pieces of a symbol, each [kind, text]: in italics, below or above the line
  const drawnSymbol = pieces => pieces.flatMap(([kind, text]) => {
    if (kind === "i") return [made("tspan", { "font-style": "italic" }, text)];
    const down = kind === "sub" ? 3 : -4;
    return [made("tspan", { dy: down, "font-size": 8 }, text), made("tspan", { dy: -down }, "\u200b")];
  });
  const writtenSymbol = pieces => pieces.map(([kind, text]) => {
    const node = document.createElement(kind === "sub" ? "sub" : kind === "sup" ? "sup" : "i");
    node.textContent = text;
    return node;
  });
  const label = p => [...drawnSymbol(data.names[p]), data.units[p] ? ` (${data.units[p]})` : " (dimensionless)"];
  const words = (x, y, style, ...body) => made("text", { x, y, ...style }, ...body);
  const tick = { "font-size": 9, fill: "#6b6b68" }, atEnd = { ...tick, "text-anchor": "end" };
  const name = { "font-size": 11, fill: "#262626", "text-anchor": "middle" };

  const ends = (voxel, p, x0, y0, upright) => {
    const [low, high] = voxel.ends[p], a = near(low, high - low), b = near(high, high - low), middle = cell / 2;
    if (!upright) return [words(x0 + inner, y0 + cell + 11, tick, a), words(x0 + middle, y0 + cell + 26, name, ...label(p)),
      words(x0 + cell - inner, y0 + cell + 11, atEnd, b)];
    const turned = { ...name, transform: `rotate(-90 ${left - 44} ${y0 + middle})` };
    return [words(left - 3, y0 + cell - inner, atEnd, a), words(left - 3, y0 + inner + 7, atEnd, b),
      words(left - 44, y0 + middle, turned, ...label(p))];
  };
  const bars = (steps, x0, y0) => {
    const bins = new Array(14).fill(0), width = drawn / 14, tall = cell - 18;
    for (const s of steps) bins[Math.min(13, Math.floor(14 * s / data.steps))]++;
    const most = Math.max(...bins);
    return bins.map((b, i) => made("rect", { x: x0 + inner + i * width, y: y0 + cell - 4 - tall * b / most,
      width: width - 0.6, height: tall * b / most, fill: "#8fa8bf" }));
  };
  const cloud = (across, up, x0, y0) => across.map((s, i) => made("circle", { cx: x0 + inner + drawn * s / data.steps,
    cy: y0 + cell - inner - drawn * up[i] / data.steps, r: 1.6, fill: "#0072b2", "fill-opacity": 0.45 }));

  const draw = voxel => {
    const shapes = [];
    for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) {
      const x0 = left + c * cell, y0 = r * cell;
      if (c > r) {
        const style = { "font-size": 10, fill: "#6b6b68", "text-anchor": "middle" };
        shapes.push(words(x0 + cell / 2, y0 + cell / 2 + 4, style, `r = ${minus(voxel.r[r][c].toFixed(2))}`));
        continue;
      }
      shapes.push(made("rect", { x: x0 + 2, y: y0 + 2, width: cell - 4, height: cell - 4, fill: "#fafaf8", stroke: "#dcdcd8" }));
      shapes.push(...(c === r ? bars(voxel.draws[r], x0, y0) : cloud(voxel.draws[c], voxel.draws[r], x0, y0)));
      if (c === 0 && r > 0) shapes.push(...ends(voxel, r, x0, y0, true));
      if (r === n - 1) shapes.push(...ends(voxel, c, x0, y0, false));
    }
    const width = left + n * cell, height = n * cell + 34;
    const svg = made("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "sans-serif" }, ...shapes);
    svg.style.maxWidth = "100%";
    plot.replaceChildren(svg);
    said.replaceChildren(`Voxel i, j, k = ${voxel.ijk.join(", ")} of the image: `);
    data.names.forEach((pieces, p) => said.append(p ? "; " : "", ...writtenSymbol(pieces),
      ` = ${voxel.said[p]} ${data.units[p]}`.trimEnd()));
    said.append(` (mean ± sd). ${voxel.draws[0].length} draws are shown; r is the correlation of all.`);
  };

  const image = Object.assign(new Image(), { alt: "map with voxels to choose" });
  image.style.cssText = "width:100%;height:100%;image-rendering:pixelated;display:block";
  const wide = Math.min(340, 460 * data.width / (data.height * data.aspect));
  map.style.cssText = `position:relative;width:${wide}px;height:${wide * data.height * data.aspect / data.width}px;background:#e3e3e0`;
  map.append(image);
  const dots = data.voxels.map(voxel => {
    const dot = document.createElement("button");
    dot.type = "button";
    dot.title = `voxel ${voxel.ijk.join(", ")}`;
    dot.setAttribute("aria-label", dot.title);
    dot.style.left = `${(voxel.column + 0.5) / data.width * 100}%`;
    dot.style.top = `${(voxel.row + 0.5) / data.height * 100}%`;
    dot.onclick = () => {
      dots.forEach(other => other.classList.toggle("on", other === dot));
      draw(voxel);
    };
    map.append(dot);
    return dot;
  });
  choice.append("Slice ");
  const buttons = data.slices.map((number, s) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = number;
    button.onclick = () => {
      image.src = data.images[s];
      buttons.forEach(other => other.classList.toggle("on", other === button));
      const here = dots.filter((dot, v) => (dot.hidden = data.voxels[v].slice !== s) === false);
      here[Math.floor(here.length / 2)].click();
    };
    choice.append(button);
    return button;
  });
  const held = data.slices.map((_, s) => data.voxels.filter(voxel => voxel.slice === s).length);
  buttons[held.indexOf(Math.max(...held))].click();
})();
