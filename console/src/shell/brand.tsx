/** The name, with its mark. */

export function Brand() {
  return (
    <a class="brand" href="/console/" aria-label="Groundstation">
      <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
        <g fill="none" stroke="currentColor" stroke-width="2.600" stroke-linecap="round">
          <path d="M6 9a14 14 0 0 0 17 17" />
          <path d="M6 9 23 26" opacity=".35" />
          <path d="M14.500 17.500 20.500 11.500" />
          <path d="M22 4.500A8 8 0 0 1 27.500 10" class="brand-wave" />
        </g>
        <circle cx="21" cy="11" r="2.700" class="brand-dot" />
      </svg>
      <span class="brand-name">Groundstation</span>
    </a>
  );
}
