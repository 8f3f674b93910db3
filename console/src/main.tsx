/** The page begins here: it finds out who is signed in, and shows the fleet or the way in. */

import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/fleet.css";
import "./styles/satellite.css";
import { render } from "preact";
import { findSession, session } from "./api/session.ts";
import { startClock } from "./parts/clock.ts";
import { useStore } from "./parts/store.ts";
import { place } from "./place/router.ts";
import { Shell, Waiting } from "./shell/shell.tsx";
import { SignIn } from "./shell/sign_in.tsx";

function Page() {
  const who = useStore(session);
  const where = useStore(place);
  if (where.route.page === "sign-in" || who.is === "nobody") return <SignIn hasEnded={who.is === "nobody" && who.why === "ended"} />;
  if (who.is === "unknown") return <Waiting problem={who.problem} onRetry={() => void findSession()} />;
  return <Shell />;
}

const root = document.getElementById("page");
if (root) {
  root.replaceChildren();
  render(<Page />, root);
}
startClock();
void findSession();
