/** What stands around every page: the bar, the banners, the dialogs that any page can open. */

import { useEffect, useState } from "preact/hooks";
import { awaySince } from "../api/client.ts";
import { mayAudit, type Session, session, signOut } from "../api/session.ts";
import { asProblem } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import { startFeed, stopFeed } from "../feed/feed.ts";
import { RegisterDialog } from "../actions/register.tsx";
import { StatePill } from "../feed/state_pill.tsx";
import { FleetPage } from "../fleet/page.tsx";
import { LogPage } from "../log/page.tsx";
import { SatellitePage } from "../satellite/page.tsx";
import { changed, followLinks, place as here } from "../place/router.ts";
import { write, type Place } from "../place/place.ts";
import { length } from "../parts/format.ts";
import { useOwnNow } from "../parts/clock.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { useStore } from "../parts/store.ts";
import { nextTheme, theme } from "../theme/theme.ts";
import { useKeys } from "./keys.ts";
import { Help, isHelpOpen } from "./help.tsx";
import { Link } from "./link.tsx";
import { Brand } from "./brand.tsx";
import { offers, findOffers } from "./offers.ts";
import { OutagesPage } from "../log/outages.tsx";
import { MaintenancePage } from "../log/maintenance.tsx";
import { WhatIfPage } from "../log/what_if.tsx";
import { AuditPage } from "../log/audit.tsx";

export function Shell() {
  const place = useStore(here);
  const who = useStore(session);
  const isHelp = useStore(isHelpOpen);
  useKeys();
  useEffect(() => {
    startFeed();
    // What is seen first goes first.
    whenIdle(() => void findOffers());
  }, []);
  useEffect(() => {
    document.title = title(place);
  }, [place]);
  return (
    <div class="shell" onClick={followLinks}>
      <a class="skip" href="#content">
        To the content
      </a>
      <header class="bar">
        <Brand />
        <Navigation place={place} who={who} />
        <span class="filler" />
        <StatePill />
        <Tools who={who} />
      </header>
      <AwayBanner />
      <main id="content" tabIndex={-1}>
        <Page place={place} />
      </main>
      {isHelp ? <Help /> : null}
      <RegisterDialog />
    </div>
  );
}

function Page({ place }: { place: Place }) {
  const { route } = place;
  switch (route.page) {
    case "fleet":
      return <FleetPage place={place} />;
    case "log":
      return <LogPage place={place} />;
    case "satellite":
      return <SatellitePage key={route.id} id={route.id} place={place} />;
    case "outages":
      return <OutagesPage place={place} />;
    case "maintenance":
      return <MaintenancePage place={place} />;
    case "what-if":
      return <WhatIfPage place={place} />;
    case "audit":
      return <AuditPage place={place} />;
    default:
      return (
        <div class="empty-fleet">
          <h1>There is no such page</h1>
          <p class="muted">The address names nothing here.</p>
          <Link to="/console/">Go to the fleet</Link>
        </div>
      );
  }
}

function Navigation({ place, who }: { place: Place; who: Session }) {
  const there = useStore(offers);
  const to = (page: "fleet" | "log" | "outages" | "maintenance" | "what-if" | "audit") => write(changed(place, { route: { page }, event: undefined, ...(page === "fleet" ? {} : { sort: undefined, view: undefined }) }));
  const link = (page: Parameters<typeof to>[0], text: string) => (
    <Link to={to(page)} class="nav-link" isHere={place.route.page === page || (page === "fleet" && place.route.page === "satellite")}>
      {text}
    </Link>
  );
  return (
    <nav class="nav" aria-label="Pages">
      {link("fleet", "Fleet")}
      {link("log", "Log")}
      {there.outages ? link("outages", "Outages") : null}
      {there.maintenance ? link("maintenance", "Maintenance") : null}
      {there.whatIf ? link("what-if", "What if") : null}
      {mayAudit(who) ? link("audit", "Audit") : null}
    </nav>
  );
}

function Tools({ who }: { who: Session }) {
  const chosen = useStore(theme);
  const [problem, setProblem] = useState<Problem>();
  const leave = async () => {
    try {
      await signOut();
      stopFeed();
    } catch (error) {
      setProblem(asProblem(error));
    }
  };
  return (
    <div class="tools">
      <button type="button" class="ghost icon" onClick={nextTheme} aria-label={`Theme: ${chosen}. Change it`} title={`Theme: ${chosen} (t)`}>
        <svg viewBox="0 0 16 16" width="15" height="15" aria-hidden="true">
          <circle cx="8" cy="8" r="5.500" fill="none" stroke="currentColor" stroke-width="1.500" />
          <path d={chosen === "dark" ? "M8 2.500a5.500 5.500 0 0 0 0 11 5.500 5.500 0 0 0 0-11" : chosen === "light" ? "" : "M8 2.500a5.500 5.500 0 0 0 0 11z"} fill="currentColor" />
        </svg>
      </button>
      <button type="button" class="ghost icon" onClick={() => isHelpOpen.set(true)} aria-label="Help and keys" title="Help and keys (?)">
        ?
      </button>
      <span class="role" title={who.is === "somebody" ? reach(who) : undefined}>
        {who.is === "somebody" ? (who.by && who.name ? `${who.name} · ${who.role}` : who.role) : null}
      </span>
      {who.is === "somebody" && who.by === "proxy" ? null : (
        <button type="button" class="ghost sign-out" onClick={leave} title={problem?.detail}>
          {problem ? "Not signed out: try again" : "Sign out"}
        </button>
      )}
    </div>
  );
}

/** Whose session it is, and what it reaches. */
function reach({ name, isBounded, by }: { name?: string; isBounded?: boolean; by?: string }): string {
  const what = by ? "you" : "your token";
  const may = isBounded ? `What ${what} may do, in the part of the fleet that ${by ? "you reach" : "it reaches"}` : `What ${what} may do`;
  return name === undefined ? may : `${may}: ${name}`;
}

/** Nothing answers: said once for the whole page. */
function AwayBanner() {
  const since = useStore(awaySince);
  const now = useOwnNow();
  if (since === undefined) return null;
  return (
    <div class="banner" role="status">
      <strong>The server does not answer</strong> since {length(Math.max(1000, now - since))}. What you see is from before. The page tries again by itself.
    </div>
  );
}

/** While it is not known who this is. */
export function Waiting({ problem, onRetry }: { problem: Problem | undefined; onRetry: () => void }) {
  return (
    <div class="shell">
      <header class="bar">
        <Brand />
      </header>
      <main class="waiting" aria-busy={problem === undefined}>
        {problem ? (
          <div class="waiting-note">
            <ProblemNote problem={problem} onRetry={onRetry} />
          </div>
        ) : null}
      </main>
    </div>
  );
}

function whenIdle(then: () => void): void {
  if (typeof requestIdleCallback === "function") requestIdleCallback(then, { timeout: 3000 });
  else setTimeout(then, 500);
}

function title(place: Place): string {
  const names: Record<string, string> = { fleet: "Fleet", log: "Log", satellite: "Satellite", outages: "Outages", maintenance: "Maintenance", "what-if": "What if", audit: "Audit" };
  return `${names[place.route.page] ?? "Not found"} · Groundstation`;
}
