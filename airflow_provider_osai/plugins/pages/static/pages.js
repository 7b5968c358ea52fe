// What all pages share: Airflow's theme and timezone, refreshing, links out of the frame, copying, filters, rollback.
"use strict";
(() => {
  const root = document.documentElement;
  const outer = (() => {
    try {
      return window.parent !== window ? window.parent.document : null;
    } catch {
      return null; // framed by another origin, which the headers forbid
    }
  })();

  const isDark = () => {
    if (outer?.documentElement.classList.contains("dark")) return true;
    if (outer?.documentElement.classList.contains("light")) return false;
    return window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const applyTheme = () => {
    const before = root.classList.contains("dark");
    root.classList.toggle("dark", isDark());
    if (outer) {
      const styles = [outer.body, outer.documentElement].map((element) => window.parent.getComputedStyle(element));
      const opaque = styles.map((style) => style.backgroundColor).find((color) => color !== "rgba(0, 0, 0, 0)");
      if (opaque) root.style.setProperty("--back", opaque);
      root.style.setProperty("--font", styles[0].fontFamily);
    }
    if (before !== isDark()) window.osaiDrawCharts();
  };

  // Airflow's UI keeps the selected timezone in the local storage, which this page shares with it.
  window.osaiTimezone = () => {
    try {
      const zone = JSON.parse(localStorage.getItem("timezone"));
      new Intl.DateTimeFormat("en", { timeZone: zone });
      if (zone) return zone;
    } catch { /* none selected, or not valid */ }
    return Intl.DateTimeFormat().resolvedOptions().timeZone;
  };
  window.osaiTime = (date) => new Intl.DateTimeFormat("sv-SE", {
    timeZone: window.osaiTimezone(), year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  }).format(date);
  const showTimes = (within) => {
    for (const element of within.querySelectorAll("time[datetime]")) {
      element.textContent = window.osaiTime(new Date(element.dateTime));
      element.title = `${element.dateTime} (${window.osaiTimezone()})`;
    }
  };

  const shown = new Map();
  for (const element of document.querySelectorAll("[data-live]")) shown.set(element.dataset.live, element.outerHTML);
  const refresh = async () => {
    let seconds = Number(document.body.dataset.refresh);
    if (!seconds) return;
    if (document.visibilityState === "visible") {
      try {
        const response = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (response.status === 401 || response.status === 403) {
          location.reload(); // shows Airflow's answer
          return;
        }
        if (response.ok) {
          const newer = new DOMParser().parseFromString(await response.text(), "text/html");
          for (const part of newer.querySelectorAll("[data-live]")) {
            const current = document.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
            if (!current) {
              location.reload(); // another kind of page, such as the first one with a job
              return;
            }
            if (shown.get(part.dataset.live) === part.outerHTML) continue;
            shown.set(part.dataset.live, part.outerHTML);
            const imported = document.importNode(part, true);
            showTimes(imported);
            current.replaceWith(imported);
          }
          window.osaiDrawCharts(newer);
          seconds = Number(newer.body.dataset.refresh);
          document.body.dataset.refresh = seconds;
        }
      } catch {
        seconds = Math.max(seconds, 15); // the API server is unreachable
      }
    }
    document.body.dataset.refreshed = String(Number(document.body.dataset.refreshed || 0) + 1);
    if (seconds) setTimeout(refresh, seconds * 1000);
  };

  // Airflow's frame forbids its pages to open windows and to leave it, so the page around it follows such links.
  const follow = (event) => {
    const link = event.target.closest("a[data-outer]");
    if (!link || !outer || event.defaultPrevented) return;
    event.preventDefault();
    const twin = outer.createElement("a");
    twin.href = link.href;
    twin.rel = "noopener noreferrer";
    if (link.dataset.outer === "blank" || event.ctrlKey || event.metaKey) twin.target = "_blank";
    outer.body.append(twin);
    twin.click();
    twin.remove();
  };
  const copy = async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    try {
      await (outer ? window.parent.navigator : navigator).clipboard.writeText(button.dataset.copy);
    } catch { // no permission, or no HTTPS
      const area = document.createElement("textarea");
      area.value = button.dataset.copy;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.classList.add("copied");
    button.title = "Copied";
    setTimeout(() => { button.classList.remove("copied"); button.title = "Copy"; }, 1500);
  };

  const dialog = document.querySelector("#confirm");
  const askToRollBack = (event) => {
    const button = event.target.closest("button[data-roll-back]");
    if (!button || !dialog) return;
    dialog.querySelector("[data-name]").textContent = button.dataset.model;
    dialog.querySelector("[data-error]").hidden = true;
    const confirm = dialog.querySelector("[data-confirm]");
    confirm.disabled = false;
    confirm.onclick = async () => {
      confirm.disabled = true;
      let reason = "Airflow's API server is unreachable.";
      try {
        const response = await fetch(confirm.dataset.url, { method: "POST", headers: { "Content-Type": "application/json" }, body: button.dataset.rollBack });
        if (response.ok) return location.reload();
        reason = response.status === 403 ? "You are not allowed to create events of this asset." : `Airflow refused the event (status ${response.status}).`;
      } catch { /* said below */ }
      confirm.disabled = false;
      const error = dialog.querySelector("[data-error]");
      error.textContent = reason;
      error.hidden = false;
    };
    dialog.showModal();
  };

  applyTheme();
  setInterval(applyTheme, 1000);
  showTimes(document);
  window.osaiDrawCharts();
  document.addEventListener("click", follow);
  document.addEventListener("click", copy);
  document.addEventListener("click", askToRollBack);
  dialog?.querySelector("[data-cancel]").addEventListener("click", () => dialog.close());
  for (const form of document.querySelectorAll("form[data-filter]")) form.addEventListener("change", () => form.requestSubmit());
  if (Number(document.body.dataset.refresh)) setTimeout(refresh, Number(document.body.dataset.refresh) * 1000);
})();
