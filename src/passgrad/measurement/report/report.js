(() => {
  "use strict";
  const cloud = document.getElementById("cloud");
  const chosen = document.getElementById("chosen");
  const points = [...cloud.querySelectorAll("a")];
  if (!points.length) return;
  let shown = null;
  let held = false;

  const rowOf = (point) => document.getElementById(point.getAttribute("href").slice(1));

  // Texts are copied as nodes that are in the page already: nothing is parsed again.
  const show = (point) => {
    if (shown) shown.classList.remove("on");
    shown = point;
    point.classList.add("on");
    const row = rowOf(point);
    const heads = row.closest("table").querySelectorAll("thead th");
    const name = document.createElement("h3");
    name.append(...[...row.cells[0].childNodes].map((node) => node.cloneNode(true)));
    const facts = document.createElement("p");
    facts.textContent = [...row.cells].slice(1)
      .map((cell, i) => heads[i + 1].textContent + ": " + cell.textContent.trim()).join(" · ");
    const texts = [...row.nextElementSibling.querySelectorAll("details > :not(summary)")];
    chosen.replaceChildren(name, facts, ...texts.map((node) => node.cloneNode(true)));
  };

  const stop = (point) => {
    for (const other of points) other.setAttribute("tabindex", other === point ? "0" : "-1");
  };

  const reveal = (row) => {
    for (let node = row; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    row.nextElementSibling.querySelector("details").open = true;
  };

  const onPoint = (event) => event.target.closest("a");
  cloud.addEventListener("pointerover", (event) => {
    const point = onPoint(event);
    if (point && !held) show(point);
  });
  cloud.addEventListener("focusin", (event) => {
    const point = onPoint(event);
    if (point) { show(point); stop(point); }
  });
  cloud.addEventListener("click", (event) => {
    const point = onPoint(event);
    if (!point) { held = false; return; }
    if (event.detail === 0) { reveal(rowOf(point)); return; } // Enter: the link leads to the row
    event.preventDefault();
    held = !(held && shown === point);
    show(point);
    stop(point);
  });
  cloud.addEventListener("keydown", (event) => {
    if (event.key === "Escape") held = false;
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    const point = onPoint(event);
    if (!point || !(event.key in steps)) return;
    event.preventDefault();
    const next = Math.min(Math.max(points.indexOf(point) + steps[event.key], 0), points.length - 1);
    points[next].focus();
  });
  const arrive = () => {
    if (!/^#prompt-\d+$/.test(location.hash)) return;
    const row = document.getElementById(location.hash.slice(1));
    if (row) { reveal(row); row.scrollIntoView(); }
  };
  addEventListener("hashchange", arrive);
  arrive();
  // Where nothing was chosen yet: the prompt that pulls hardest.
  const first = points.find((point) => point.getAttribute("href") === "#prompt-0") || points[0];
  stop(first);
  show(first);
})();
