/** What a satellite is to check: the list, and for administrators an editor of its JSON. */

import { useState } from "preact/hooks";
import { ask, asProblem } from "../api/client.ts";
import type { Problem } from "../api/problem.ts";
import { useResource } from "../api/resource.ts";
import type { AssignmentList, Json } from "../api/types.ts";
import { count, seen } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";
import { lineOf } from "./json_line.ts";

interface Versioned {
  list: AssignmentList;
  etag: string | undefined;
}

const EXAMPLE = `[
  {
    "configId": "home",
    "systemId": "web",
    "strategyId": "http",
    "config": { "url": "https://example.org" },
    "intervalSeconds": 60
  }
]`;

export function Assignments({ id, mayChange }: { id: string; mayChange: boolean }) {
  const path = `/v1/satellites/${id}/assignments`;
  const found = useResource(path, async (signal): Promise<Versioned> => {
    const { body, etag } = await ask<AssignmentList>(path, { signal });
    return { list: body, etag };
  });
  const [isEdited, edit] = useState(false);
  const list = found.data?.list;
  return (
    <section class="panel" aria-labelledby="assignments-title">
      <header class="panel-head">
        <h2 id="assignments-title">
          Assignments <span class="muted tabular">{list ? count(list.assignments.length) : ""}</span>
        </h2>
        <span class="muted small-text">{list && list.version > 0 ? `version ${list.version}` : ""}</span>
        <span class="filler" />
        {mayChange && list && !isEdited ? (
          <button type="button" class="small" onClick={() => edit(true)}>
            Edit
          </button>
        ) : null}
      </header>
      {found.problem ? <ProblemNote problem={found.problem} of="Assignments" onRetry={found.reload} /> : null}
      {found.data && isEdited ? (
        <Editor
          path={path}
          begun={found.data}
          onClose={(isSaved) => {
            edit(false);
            if (isSaved) found.reload();
          }}
          onReload={found.reload}
        />
      ) : list ? (
        <List list={list.assignments} />
      ) : null}
    </section>
  );
}

function List({ list }: { list: readonly Json[] }) {
  if (list.length === 0) return <p class="muted">Nothing is assigned.</p>;
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label="Assignments">
      <table class="plain">
        <thead>
          <tr>
            <th scope="col">Check</th>
            <th scope="col">System</th>
            <th scope="col">Strategy</th>
            <th scope="col">Every</th>
            <th scope="col">Collectors</th>
          </tr>
        </thead>
        <tbody>
          {list.map((each, i) => (
            <tr key={i}>
              <td>{text(each, "configName") ?? text(each, "configId")}</td>
              <td>{text(each, "systemName") ?? text(each, "systemId")}</td>
              <td class="mono">{text(each, "strategyId")}</td>
              <td class="tabular">{text(each, "intervalSeconds")} s</td>
              <td class="tabular">{collectors(each)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Editor({ path, begun, onClose, onReload }: { path: string; begun: Versioned; onClose: (isSaved: boolean) => void; onReload: () => void }) {
  const [etag] = useState(begun.etag);
  const [written, write] = useState(() => (begun.list.assignments.length === 0 ? EXAMPLE : JSON.stringify(begun.list.assignments, null, 2)));
  const [wrong, setWrong] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  const [isBusy, setBusy] = useState(false);
  const line = problem?.path === undefined ? undefined : lineOf(written, problem.path);
  const save = async () => {
    let assignments: Json;
    try {
      assignments = JSON.parse(written) as Json;
    } catch (error) {
      setWrong(error instanceof Error ? error.message : String(error));
      return;
    }
    setWrong(undefined);
    setBusy(true);
    try {
      await ask(path, { method: "PUT", body: { assignments }, headers: etag === undefined ? {} : { "if-match": etag } });
      onClose(true);
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <label for="assignments-json" class="muted small-text">
        The whole list as JSON; what is missing from it is no longer assigned.
      </label>
      <textarea
        id="assignments-json"
        class="mono"
        spellcheck={false}
        rows={Math.min(28, Math.max(8, written.split("\n").length + 1))}
        value={written}
        aria-invalid={wrong !== undefined || problem !== undefined}
        aria-describedby="assignments-wrong"
        onInput={(event) => write(event.currentTarget.value)}
      />
      <div id="assignments-wrong" aria-live="assertive">
        {wrong ? <p class="field-error">This is not JSON: {wrong}</p> : null}
        {problem ? (
          <p class="field-error">
            {problem.path === undefined ? null : (
              <>
                <code>{problem.path}</code>
                {line === undefined ? "" : ` (line ${line})`}:{" "}
              </>
            )}
            {problem.detail}
          </p>
        ) : null}
      </div>
      <div class="form-actions">
        <button type="submit" class="primary" disabled={isBusy}>
          {isBusy ? "Saving …" : "Save the list"}
        </button>
        <button type="button" onClick={() => onClose(false)}>
          Cancel
        </button>
        {problem?.status === 412 ? (
          <button
            type="button"
            onClick={() => {
              onClose(false);
              onReload();
            }}
          >
            Drop mine and show theirs
          </button>
        ) : null}
      </div>
    </form>
  );
}

function text(value: Json, name: string): string | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const field = value[name];
  return typeof field === "string" || typeof field === "number" ? seen(String(field)) : undefined;
}

function collectors(value: Json): number {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return 0;
  const list = value["collectors"];
  return Array.isArray(list) ? list.length : 0;
}
