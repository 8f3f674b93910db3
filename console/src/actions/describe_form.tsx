/** The form for what administrators say of a satellite: name, region, tags, threshold. */

import { useState } from "preact/hooks";
import type { Problem } from "../api/problem.ts";
import { duration, parseDuration } from "../parts/format.ts";
import { ProblemNote } from "../parts/problem_note.tsx";

export interface Description {
  name: string;
  region: string;
  tags: Record<string, string>;
  offlineThresholdMs: number | null;
}

interface Props {
  begun: Description;
  action: string;
  problem: Problem | undefined;
  isBusy: boolean;
  onSave: (description: Description) => void;
  onCancel: () => void;
  children?: preact.ComponentChildren;
}

export function DescribeForm({ begun, action, problem, isBusy, onSave, onCancel, children }: Props) {
  const [name, setName] = useState(begun.name);
  const [region, setRegion] = useState(begun.region);
  const [tags, setTags] = useState(() => writeTags(begun.tags));
  const [threshold, setThreshold] = useState(begun.offlineThresholdMs === null ? "" : duration(begun.offlineThresholdMs));
  const [wrong, setWrong] = useState<{ tags?: string; threshold?: string }>({});
  const at = (field: string) => (problem?.path?.split(/[.[]/)[0] === field ? problem.detail : undefined);
  const save = (event: Event) => {
    event.preventDefault();
    const readTags_ = readTags(tags);
    const ms = threshold.trim() === "" ? null : parseDuration(threshold);
    const wrong: { tags?: string; threshold?: string } = {};
    if (typeof readTags_ === "string") wrong.tags = readTags_;
    if (ms === undefined) wrong.threshold = "Write a length of time such as 90s or 5m.";
    setWrong(wrong);
    if (typeof readTags_ === "string" || ms === undefined) return;
    onSave({ name: name.trim(), region: region.trim(), tags: readTags_, offlineThresholdMs: ms });
  };
  const errors = { name: at("name"), region: at("region"), tags: wrong.tags ?? at("tags"), threshold: wrong.threshold ?? at("offlineThresholdMs") };
  const isShown = Object.values(errors).some((error) => error !== undefined);
  return (
    <form class="form" onSubmit={save}>
      <Field id="name" label="Name" error={errors.name}>
        <input id="name" autofocus required maxLength={200} value={name} aria-invalid={errors.name !== undefined} aria-describedby="name-error" onInput={(event) => setName(event.currentTarget.value)} />
      </Field>
      <Field id="region" label="Region" error={errors.region}>
        <input id="region" required maxLength={200} value={region} aria-invalid={errors.region !== undefined} aria-describedby="region-error" onInput={(event) => setRegion(event.currentTarget.value)} />
      </Field>
      <Field id="tags" label="Tags" hint="one a line, name:value" error={errors.tags}>
        <textarea id="tags" class="mono" rows={3} spellcheck={false} value={tags} aria-invalid={errors.tags !== undefined} aria-describedby="tags-error" onInput={(event) => setTags(event.currentTarget.value)} />
      </Field>
      <Field id="threshold" label="Offline threshold" hint="such as 90s; empty: the pods' own" error={errors.threshold}>
        <input id="threshold" value={threshold} aria-invalid={errors.threshold !== undefined} aria-describedby="threshold-error" onInput={(event) => setThreshold(event.currentTarget.value)} />
      </Field>
      {problem && !isShown ? <ProblemNote problem={problem}>{children}</ProblemNote> : null}
      <div class="form-actions">
        <button type="submit" class="primary" disabled={isBusy}>
          {isBusy ? "…" : action}
        </button>
        <button type="button" onClick={onCancel}>
          Cancel
        </button>
      </div>
    </form>
  );
}

function Field({ id, label, hint, error, children }: { id: string; label: string; hint?: string; error: string | undefined; children: preact.ComponentChildren }) {
  return (
    <div class="field">
      <label for={id}>
        {label} {hint ? <span class="muted">({hint})</span> : null}
      </label>
      {children}
      <p id={`${id}-error`} class="field-error" aria-live="polite">
        {error}
      </p>
    </div>
  );
}

export function writeTags(tags: Record<string, string>): string {
  return Object.entries(tags)
    .map(([name, value]) => `${name}:${value}`)
    .join("\n");
}

/** The tags, or what is wrong with them. */
export function readTags(text: string): Record<string, string> | string {
  const tags: Record<string, string> = {};
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    const colon = line.indexOf(":");
    if (colon <= 0) return `Write ${JSON.stringify(line.trim())} as name:value.`;
    tags[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
  }
  return tags;
}
