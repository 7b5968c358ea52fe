// Tables that are wider than the page scroll: let the keyboard reach them, too.
new MutationObserver(() => {
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    wrap.tabIndex = 0
    wrap.setAttribute("role", "region")
    wrap.setAttribute("aria-label", "Table")
  }
}).observe(document.body, { childList: true, subtree: true })
