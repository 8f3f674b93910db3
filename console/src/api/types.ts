/**
 * What the HTTP API answers, as /openapi.json describes it.
 *
 * Words can be of a later version of the server, so a word is a `string` wherever the page only shows it. Fields are
 * only ever added.
 */

/** A time in RFC 3339, UTC, with milliseconds. */
export type Timestamp = string;

export type Status = "online" | "offline";
export type Edge = "connected" | "disconnected" | "heartbeat_lost";
export type Role = "admin" | "operator" | "read";

/** GET /console/session */
export interface SessionAnswer {
  role: Role;
  /** What the token is called, where it has a name. */
  name?: string;
  /** The token reaches a part of the fleet: what is shown is all there is for it. */
  isBounded?: boolean;
  /** Where the session is a person's: who says so. A proxy says it again with each request, so nobody signs out of that here. */
  by?: "provider" | "proxy";
}

/** GET /console/session/ways */
export interface Ways {
  /** What the identity provider is called, where there is one. */
  oidc?: string;
}

export interface Counts {
  total: number;
  online: number;
  offline: number;
  neverConnected: number;
  flapping: number;
  inMaintenance: number;
}

export interface RegionCounts extends Counts {
  region: string;
}

/** GET /v1/fleet */
export interface FleetCounts extends Counts {
  regions: RegionCounts[];
  regionsLeftOut?: number;
  position: number;
}

export interface Imported {
  lastEvent?: string;
  lastHeartbeatAt?: Timestamp;
  importedAt: Timestamp;
}

/** One satellite; GET /v1/satellites/{id} */
export interface Satellite {
  id: string;
  name: string;
  region: string;
  tags: Record<string, string>;
  capabilities: string[];
  version?: string;
  status: string;
  lastHeartbeatAt?: Timestamp;
  lastSeenAt: Timestamp | null;
  lastEvent?: string;
  flapping?: boolean;
  offlineThresholdMs?: number;
  createdAt: Timestamp;
  imported?: Imported;
  connectedSince?: Timestamp;
  pod?: string;
  address?: string;
  disabled?: boolean;
  /** The window that it is in. */
  maintenance?: { id: string; reason: string; until: Timestamp };
}

/** GET /v1/satellites */
export interface SatellitePage {
  satellites: Satellite[];
  nextCursor?: string;
  position?: number;
}

export interface State {
  status: string;
  name: string;
  region: string;
  lastSeenAt: Timestamp | null;
  lastEvent: string | null;
  flapping?: boolean;
}

export interface Actor {
  type: string;
  id: string;
}

/** A row of the log. */
export interface Transition {
  position: number;
  revision: number;
  changeId: string;
  kind: string;
  id: string;
  event: string;
  reason: string;
  session: number;
  prev: State | null;
  next: State | null;
  changedFields: string[];
  actor: Actor;
  occurredAt: Timestamp;
  recordedAt: Timestamp;
}

/** GET /v1/transitions, GET /v1/satellites/{id}/transitions */
export interface TransitionPage {
  transitions: Transition[];
  nextAfter: number;
  nextBefore?: number;
}

/** An entry of the audit. */
export interface AuditEntry {
  position: number;
  recordedAt: Timestamp;
  actor: Actor;
  address?: string;
  action: string;
  target: { kind: string; id: string };
  before?: Record<string, unknown>;
  after?: Record<string, unknown>;
}

/** GET /v1/audit */
export interface AuditPage {
  entries: AuditEntry[];
  nextAfter: number;
  nextBefore?: number;
}

export interface TimelinePoint {
  at: Timestamp;
  online: number;
  offline: number;
  unknown: number;
}

/** GET /v1/fleet/timeline */
export interface Timeline {
  points: TimelinePoint[];
}

export interface Interval {
  from: Timestamp;
  to: Timestamp;
  state: string;
  event?: string;
  reason?: string;
}

/** GET /v1/intervals */
export interface Intervals {
  from: Timestamp;
  to: Timestamp;
  intervals: Record<string, Interval[]>;
}

/** GET /v1/satellites/{id}/stats */
export interface Stats {
  field: string;
  value?: string | null;
  inStateSince?: Timestamp | null;
  inStateForMs?: number | null;
  transitionCount: number;
  from: Timestamp;
  to: Timestamp;
  upMs: number;
  downMs: number;
  unknownMs: number;
}

/** POST /v1/satellites */
export interface Registered {
  satellite: Satellite;
  token?: string;
}

/** POST /v1/satellites/{id}/token */
export interface NewToken {
  token: string;
  previousTokenEndsAt?: Timestamp;
}

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** GET and PUT /v1/satellites/{id}/assignments */
export interface AssignmentList {
  version: number;
  assignments: Json[];
}

/** An error, RFC 9457. */
export interface ProblemBody {
  type: string;
  title: string;
  status: number;
  detail: string;
  path?: string;
}

/** The scope of an outage. */
export interface Scope {
  fleet?: boolean;
  region?: string;
  pod?: string;
}

export interface Outage {
  outageId: string;
  scope: Scope;
  late?: number;
  sessions?: number;
  startedAt: Timestamp;
  endedAt?: Timestamp | null;
  lost?: number;
}

/** GET /v1/outages */
export interface OutagePage {
  outages: Outage[];
}

export interface Selector {
  ids?: string[];
  region?: string;
  tags?: Record<string, string>;
}

export interface Maintenance {
  id: string;
  /** None selects the whole fleet. */
  selector?: Selector;
  from: Timestamp;
  to: Timestamp;
  reason: string;
  state: "planned" | "open" | "over";
  /** When it was ended before its time. */
  endedAt?: Timestamp;
}

/** GET /v1/maintenance */
export interface MaintenancePage {
  windows: Maintenance[];
  nextCursor?: string;
}

/** What another threshold would have done to losses. */
export interface Losses {
  losses: number;
  spared: number;
  kept: number;
  undecided: number;
  addedAtLeast: number;
}

export interface WhatIf extends Losses {
  delay?: { p50Ms: number; p99Ms: number; maxMs: number };
  regions: (Losses & { region: string })[];
  satellites: (Losses & { id: string; name: string; region: string })[];
  unknown: string[];
}
