// The slice viewer: linked maps drawn by NiiVue, and what is known of the voxel at the crosshair. Without WebGL the voxel
// is chosen by its numbers. Every string of the data becomes text, never markup.
const at = id => document.getElementById(id);

const unpacked = async id => {
  const packed = Uint8Array.from(atob(at(id).textContent.trim()), c => c.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
};

// arrays whose bytes of one significance lie together
const reader = buffer => {
  const joined = (place, Kind) => {
    const [begin, length] = place, size = Kind.BYTES_PER_ELEMENT, n = length / size, bytes = new Uint8Array(length);
    const source = new Uint8Array(buffer, begin, length);
    for (let i = 0; i < n; i++) for (let k = 0; k < size; k++) bytes[i * size + k] = source[k * n + i];
    return new Kind(bytes.buffer);
  };
  const half = bits => {
    const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, rest = bits & 1023;
    if (power === 31) return rest ? NaN : sign * Infinity;
    return sign * (power ? 2 ** (power - 15) * (1 + rest / 1024) : 2 ** -14 * rest / 1024);
  };
  return { joined, map: m => Float32Array.from(joined(m.at, Uint16Array), bits => half(bits) * m.factor) };
};

// a NIfTI-1 file of bytes (x fastest), which NiiVue reads
const niftiOf = (bytes, shape, affine) => {
  const file = new ArrayBuffer(352 + bytes.length), head = new DataView(file);
  head.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((v, i) => head.setInt16(40 + 2 * i, v, true));
  head.setInt16(70, 2, true);
  head.setInt16(72, 8, true);
  const zoom = c => Math.hypot(affine[0][c], affine[1][c], affine[2][c]);
  [1, zoom(0), zoom(1), zoom(2), 1, 1, 1, 1].forEach((v, i) => head.setFloat32(76 + 4 * i, v, true));
  head.setFloat32(108, 352, true);
  head.setFloat32(112, 1, true);
  head.setUint8(123, 2);
  head.setInt16(254, 1, true);
  affine.slice(0, 3).flat().forEach((v, i) => head.setFloat32(280 + 4 * i, v, true));
  [110, 43, 49, 0].forEach((v, i) => head.setUint8(344 + i, v));
  new Uint8Array(file, 352).set(bytes);
  return file;
};

const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const MISSING = [255, 123, 213];

const start = async () => {
  const data = JSON.parse(at("viewer-data").textContent);
  const numbers = reader(await unpacked("viewer-numbers"));
  const [nx, ny, nz] = data.shape, status = numbers.joined(data.status, Uint8Array);
  const place = (i, j, k) => (i * ny + j) * nz + k; // as the numbers lie: z fastest
  const order = new Int32Array(status.length).fill(-1); // place of each voxel among those of the mask
  let n = 0;
  status.forEach((code, p) => { if (code) order[p] = n++; });
  const values = new Map();
  const valuesOf = m => values.get(m) ?? values.set(m, numbers.map(m)).get(m);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const background = () => dark.matches ? [38, 38, 40] : [227, 227, 224];

  // bytes that stand for colours: 0 outside the mask, 3 no number, 8 below the scale, 13 to 253 along it; NiiVue looks
  // colours up between two entries of its table, so each of the first has equal neighbours
  const coded = m => {
    const found = new Uint8Array(nx * ny * nz), numbersOf = valuesOf(m);
    for (let k = 0, to = 0; k < nz; k++) for (let j = 0; j < ny; j++) for (let i = 0; i < nx; i++, to++) {
      const o = order[place(i, j, k)];
      if (o < 0) continue;
      const v = numbersOf[o], share = (v - m.lower) / (m.upper - m.lower);
      found[to] = Number.isNaN(v) ? 3 : share < 0 ? 8 : 13 + Math.round(240 * Math.min(1, share));
    }
    return found;
  };
  const codedStatus = () => {
    const found = new Uint8Array(nx * ny * nz);
    for (let k = 0, to = 0; k < nz; k++) for (let j = 0; j < ny; j++) for (let i = 0; i < nx; i++, to++) found[to] = 20 * Math.min(12, status[place(i, j, k)]);
    return found;
  };
  const table = entry => {
    const lut = { R: [], G: [], B: [], A: [], I: [] };
    for (let v = 0; v < 256; v++) {
      const [r, g, b] = v === 0 ? background() : entry(v);
      lut.R.push(r); lut.G.push(g); lut.B.push(b); lut.A.push(255); lut.I.push(v);
    }
    return lut;
  };
  const ladder = m => v => {
    if (v < 6) return MISSING;
    if (v < 11 && m.under) return rgb(m.under);
    const c = Math.round(Math.min(1, Math.max(0, (v - 13) / 240)) * 249);
    return [0, 2, 4].map(o => parseInt(m.colours.slice(6 * c + o, 6 * c + o + 2), 16));
  };
  const statusColours = v => rgb(data.levels[Math.round(v / 20)]?.[1] ?? "#000000");

  let shown = data.parameters[0], here = data.start, plane = data.axis;
  const panes = [
    { id: "mean", map: () => shown.maps.mean, title: () => "Mean" },
    { id: "sd", map: () => shown.maps.sd, title: () => "Standard deviation" },
    { id: "status", map: () => null, title: () => "Status" },
    { id: "p", map: () => data.p, title: () => (data.p?.name ?? "").replace("posterior ", "") },
  ].filter(pane => pane.id === "status" || (pane.id === "p" ? data.p : data.parameters.some(p => p.maps[pane.id])));

  // ---- the voxel at the crosshair
  const sampled = data.voxels && (() => {
    const v = data.voxels, ijk = numbers.joined(v.ijk, Uint16Array), all = numbers.joined(v.values, Uint16Array);
    const m = v.x.length, reference = numbers.joined(v.reference, Float32Array);
    const part = (kind, i) => Array.from(all.subarray((kind * v.n + i) * m, (kind * v.n + i + 1) * m), x => v.low + v.step * x);
    const ends = v.names.length ? numbers.joined(v.ends, Float32Array) : null, draws = ends && numbers.joined(v.draws, Uint8Array);
    return {
      nearest: image => {
        let best = 0, least = Infinity;
        for (let i = 0; i < v.n; i++) {
          const d = (ijk[3 * i] - image[0]) ** 2 + (ijk[3 * i + 1] - image[1]) ** 2 + (ijk[3 * i + 2] - image[2]) ** 2;
          if (d < least) [best, least] = [i, d];
        }
        return [best, Math.sqrt(least), [...ijk.subarray(3 * best, 3 * best + 3)]];
      },
      voxel: i => ({ y: part(0, i), fitted: part(1, i), low: part(2, i), high: part(3, i),
        s0: v.s0 ? reference[i] : null }),
      draws: i => v.names.map((_, p) => Array.from({ length: v.nDraws }, (_, s) => draws[(p * v.nDraws + s) * v.n + i])),
      ends: i => v.names.map((_, p) => [...ends.subarray(2 * (p * v.n + i), 2 * (p * v.n + i) + 2)]),
    };
  })();
  const toImage = voxel => data.toImage.map(row => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
  const row = (...cells) => {
    const made = document.createElement("tr");
    cells.forEach((cell, i) => {
      const td = document.createElement(i ? "td" : "th");
      if (i) td.className = "n"; else td.scope = "row";
      td.append(...[cell].flat());
      made.append(td);
    });
    return made;
  };
  const tell = () => {
    const p = place(...here), o = order[p], image = toImage(here), code = status[p];
    at("voxel-place").textContent = `Voxel ${image.join(", ")}`;
    at("voxel-status").textContent = code ? `Status ${code}: ${data.levels[code]?.[0] ?? "unknown"}` : "Outside the mask";
    const rows = o < 0 ? [] : data.parameters.filter(q => q.main || q === shown).map(q => row([...writtenSymbol(q.symbol), q.unit ? ` (${q.unit})` : ""],
      digits(valuesOf(q.maps.mean)[o]), q.maps.sd ? `± ${digits(valuesOf(q.maps.sd)[o])}` : ""));
    if (o >= 0 && data.p) rows.push(row(data.p.name, digits(valuesOf(data.p)[o]), ""));
    if (o >= 0 && data.khat) rows.push(row("Pareto k", digits(valuesOf(data.khat)[o]), ""));
    at("voxel-numbers").replaceChildren(...rows);
    if (!sampled) return;
    const [i, away, whose] = sampled.nearest(image), v = data.voxels;
    at("voxel-fit").replaceChildren(fitPlot(sampled.voxel(i), v));
    at("voxel-pairs").replaceChildren(...(v.names.length ? [pairPlot(sampled.draws(i), sampled.ends(i), v.symbols, v.units)] : []));
    at("voxel-whose").textContent = away === 0 ? "" :
      `The plots are of the nearest voxel that is kept in full: ${whose.join(", ")}, ${away.toFixed(1)} voxels away.`;
  };

  // ---- controls
  const slider = at("viewer-slice"), boxes = ["i", "j", "k"].map(a => at(`voxel-${a}`)), planes = at("viewer-plane");
  const across = () => (plane === 3 ? data.axis : plane);
  const refresh = () => {
    slider.max = data.shape[across()] - 1;
    slider.value = here[across()];
    slider.disabled = slider.max === "0";
    const image = toImage(here);
    const axisOfImage = data.toImage.findIndex(r => r[across()] !== 0);
    at("viewer-where").textContent = `slice ${image[axisOfImage]}`;
    boxes.forEach((box, a) => { box.value = image[a]; });
    tell();
  };
  const draw = () => panes.forEach(pane => {
    if (!pane.nv) return;
    pane.nv.scene.crosshairPos = here.map((v, a) => (v + 0.5) / data.shape[a]);
    pane.nv.drawScene();
  });
  const move = voxel => {
    here = voxel.map((v, a) => Math.min(data.shape[a] - 1, Math.max(0, Math.round(v))));
    draw();
    refresh();
  };
  slider.addEventListener("input", () => move(here.map((v, a) => (a === across() ? Number(slider.value) : v))));
  boxes.forEach(box => box.addEventListener("change", () => {
    const wanted = boxes.map(b => Number(b.value));
    // every axis of the image is one axis of the viewer, forwards or backwards
    const found = [0, 1, 2].map(axis => {
      const a = data.toImage.findIndex(r => r[axis] !== 0);
      return (wanted[a] - data.toImage[a][3]) / data.toImage[a][axis];
    });
    move(found);
  }));
  const choice = at("viewer-parameter");
  data.parameters.forEach((q, i) => choice.append(new Option(`${q.name}: ${q.doc}`, i)));
  const names = data.oriented ? ["sagittal", "coronal", "axial"] : ["first axis", "second axis", "third axis"];
  [2, 1, 0].forEach(a => planes.append(new Option(data.oriented ? names[a] : `across the ${names[a]}`, a, a === plane, a === plane)));
  planes.append(new Option("all three", 3));

  // ---- maps
  const legend = pane => {
    const m = pane.map();
    at(`pane-${pane.id}-title`).textContent = pane.title();
    if (!m) {
      at("pane-status-legend").replaceChildren(...Object.entries(data.levels).map(([code, [text, colour, brief]]) => {
        const item = document.createElement("span"), swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.background = colour;
        item.title = text;
        item.append(swatch, ` ${code} ${brief}`);
        return item;
      }));
      return;
    }
    const bar = at(`pane-${pane.id}-bar`), stops = [0, 31, 62, 93, 124, 155, 186, 217, 249];
    bar.style.background = `linear-gradient(to right, ${stops.map(c => `#${m.colours.slice(6 * c, 6 * c + 6)}`).join(", ")})`;
    at(`pane-${pane.id}-low`).textContent = digits(m.lower);
    at(`pane-${pane.id}-high`).textContent = `${digits(m.upper)} ${pane.id === "p" ? "" : shown.unit}`;
  };
  const paint = async pane => {
    const m = pane.map(), bytes = m ? coded(m) : codedStatus();
    const nv = pane.nv, volume = nv.volumes[0], name = `pane-${pane.id}`;
    nv.addColormap(name, table(m ? ladder(m) : statusColours));
    nv.opts.backColor = [...background().map(v => v / 255), 1];
    volume.img.set(bytes);
    volume.colormap = name;
    volume.cal_min = 0;
    volume.cal_max = 255;
    nv.updateGLVolume();
  };
  const open = async pane => {
    const canvas = at(`pane-${pane.id}-canvas`);
    const nv = new niivue.Niivue({ isResizeCanvas: true, isNearestInterpolation: true, crosshairColor: [0.9, 0.15, 0.15, 0.9],
      crosshairWidth: 0.5, crosshairWidthUnit: "percent", isOrientationTextVisible: data.oriented, dragAndDropEnabled: false, logLevel: "error",
      loadingText: "", viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", isForceMouseClickToVoxelCenters: true,
      multiplanarShowRender: 0, fontMinPx: 11, fontSizeScaling: 0.25, show3Dcrosshair: false, crosshairGap: 3 });
    await nv.attachToCanvas(canvas, false);
    canvas.parentElement.style.backgroundColor = "";
    await nv.loadFromArrayBuffer(niftiOf(new Uint8Array(nx * ny * nz), data.shape, data.affine), "map.nii");
    pane.nv = nv;
    nv.setSliceType([2, 1, 0, 3][plane]);
    await paint(pane);
    nv.onLocationChange = found => {
      const voxel = Array.from(found.vox, Math.round);
      if (voxel.some((v, a) => v !== here[a])) requestAnimationFrame(() => move(voxel));
    };
    return canvas;
  };
  const keys = canvas => {
    const axes = () => [0, 1, 2].filter(a => a !== across());
    // before NiiVue's own keys, and the page's scrolling where the pane has been chosen
    canvas.parentElement.addEventListener("keydown", event => {
      const [right, up] = axes();
      const steps = { ArrowRight: [right, 1], ArrowLeft: [right, -1], ArrowUp: [up, 1], ArrowDown: [up, -1],
        PageUp: [across(), 1], PageDown: [across(), -1] };
      if (event.key === "Tab" || event.ctrlKey || event.metaKey) return;
      event.stopPropagation();
      if (!steps[event.key]) return;
      event.preventDefault();
      const [axis, by] = steps[event.key];
      move(here.map((v, a) => v + (a === axis ? by : 0)));
    }, true);
    canvas.parentElement.addEventListener("wheel", event => {
      if (document.activeElement !== canvas) event.stopPropagation();
    }, true);
  };
  choice.addEventListener("change", async () => {
    shown = data.parameters[Number(choice.value)];
    for (const pane of panes) {
      const there = pane.id === "status" || pane.map();
      at(`pane-${pane.id}`).hidden = !there;
      if (!there) continue;
      legend(pane);
      if (pane.nv) await paint(pane);
    }
    draw();
    tell();
  });
  planes.addEventListener("change", () => {
    plane = Number(planes.value);
    panes.forEach(pane => pane.nv?.setSliceType([2, 1, 0, 3][plane]));
    move(here);
  });

  at("viewer").hidden = false;
  at("viewer-needs").hidden = true;
  refresh();
  if (!document.createElement("canvas").getContext("webgl2")) {
    at("viewer-webgl").hidden = false;
    return;
  }
  // the program that draws, which the page's policy allows by its digest
  const program = document.createElement("script");
  program.textContent = new TextDecoder().decode(await unpacked("viewer-program"));
  document.head.append(program);
  for (const pane of panes) {
    at(`pane-${pane.id}`).hidden = false;
    legend(pane);
    keys(await open(pane));
  }
  draw();
  dark.addEventListener("change", async () => {
    for (const pane of panes) await paint(pane);
    draw();
  });
  at("viewer").dataset.ready = "yes";
};
start();
