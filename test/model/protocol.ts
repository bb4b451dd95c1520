/** The exchange and the invocations' side of it as a finite state machine: a state is a row of nibbles, time passes in quarters of grace. */

export const RULES = [
  "self-abort",
  "lease-from-sending",
  "check-before-starting",
  "expired-flag",
  "never-oneself",
  "one-transaction",
  "seq",
  "tell-again",
  "refuse-lower-seq",
  "release-fence",
  "unacknowledged",
  "newest-only",
  "same-number",
  "end-unholds",
  "none-after-end",
  "suspects",
  "suspects-alone",
  "forgiveness",
  "witness-seen",
  "witness-gap",
  "fence-holder",
  "fence-attempt",
] as const;
export type Rule = (typeof RULES)[number];

export const INVARIANTS = {
  once: "1 two processes that believe in their lease run one task",
  held: "1 a process runs what the database does not hold for it",
  result: "2 a result is accepted from one who does not hold that attempt",
  expired: "3 an expired or ended invocation changes a task",
  seat: "4 a seat is freed while its newest holder sits there",
  lost: "5, 8 an expired or ended invocation holds a task that nobody will take back",
  attempts: "7 attempts are not bounded",
  innocent: "7 a task loses an attempt to another's poison",
  places: "10 an invocation holds more than it has places for",
  untold: "11 a living invocation holds a task of which it will never hear",
  superseded: "12 one whose seat somebody else has taken claims more",
  outage: "4th step: one that had no quarter of grace to speak in is called silent",
} as const;
export type Invariant = keyof typeof INVARIANTS;

export type Fault =
  | "crash"
  | "freeze"
  | "loss"
  | "stray"
  | "two-strays"
  | "fail"
  | "end"
  | "stop"
  | "outage"
  | "poison"
  | "only-free"
  /** What is told may wait for its place. */
  | "ahead";

export interface Config {
  readonly invocations: number;
  readonly tasks: number;
  readonly slots: number;
  /** Attempts an invocation runs at a time. */
  readonly places: number;
  readonly maxAttempts: number;
  readonly faults: readonly Fault[];
  /** Rules taken away. */
  readonly without?: readonly Rule[];
  /** The invariants looked at; without it, all. */
  readonly watch?: readonly Invariant[];
}

export type Emit = (broken: Invariant | undefined) => void;

export interface Model {
  /** Nibbles of a state. */
  readonly size: number;
  /** What the last emitted step did; only while `telling`. */
  label: string;
  telling: boolean;
  /** The state that emit hands over, in its canonical form unless `telling`. */
  readonly next: Uint8Array;
  initial(): Uint8Array;
  successors(state: Uint8Array, emit: Emit): void;
  canonical(state: Uint8Array): void;
}

const GRACE = 4;
const LEASE = 3;
const WITNESS = 1;
const GAP = 2;
const UNCONFIRMED = 7;
const FAR = 3;

// A task: free, held, done, failed.
const [STATUS, BY, ATTEMPT, FORGIVEN, SUSPECT, CLAIM_AGE, LAST_RUN, LOST_FORGIVEN, LOST_COUNTED, TASK_SIZE] = range(10);
const [FREE, HELD, DONE, FAILED] = range(4);
// An invocation: its process, its row, what is between them. SEQ_AGE, CLAIMED_AGE, CLAIM_AGE and a stray's age count back from
// the process's number: numbers themselves would have no end.
const [
  LIFE,
  FLAGS,
  SLOT,
  ROW,
  GHOST,
  SEQ_AGE,
  SILENT,
  SEEN,
  LEASE_AGE,
  SENT_AGE,
  AWAITED,
  REQUEST,
  ANSWER,
  CLAIMED_AGE,
  HOLDS_SUSPECT,
  SPOKEN_FOR,
  INVOCATION_SIZE,
] = range(17);
const [UNBORN, ALIVE, DEAD] = range(3);
const FROZEN = 1;
/** Thawed past its lease, and the timer that says so has not fired yet. */
const OVERDUE = 2;
const STOPPING = 4;
const ONLY_FREE = 8;
const [NO_ROW, LIVE, ENDED, EXPIRED] = range(4);
const [NOTHING, ON_ITS_WAY, ANSWERED] = range(3);
const [, OK, GONE, OLD, TAKEN] = range(5);
const WANT = 3;
const ENDING = 4;
const ALONE = 8;
// What a process knows of a task; SENT + kind: its result is in the request under way.
const [, WAITING, RUNNING, SUCCESS, FAILURE, RELEASED] = range(6);
const SENT = 3;
// Of each task in an invocation: kind, attempt, attempt told in the answer; in a stray: result, attempt.
const [KIND, KIND_ATTEMPT, TOLD, KNOWN_SIZE] = range(4);

export function protocol(config: Config): Model {
  const { invocations, tasks, slots, places, maxAttempts } = config;
  const may = (fault: Fault): boolean => config.faults.includes(fault);
  const on = (rule: Rule): boolean => !(config.without ?? []).includes(rule);
  const watched = (invariant: Invariant): boolean => config.watch?.includes(invariant) ?? true;
  const strays = may("two-strays") ? 2 : may("stray") ? 1 : 0;
  const straySize = 2 + 2 * tasks;
  const size1 = INVOCATION_SIZE + KNOWN_SIZE * tasks + straySize * strays;
  const slotAt = (slot: number): number => 1 + 2 * slot;
  const taskAt = (task: number): number => 1 + 2 * slots + TASK_SIZE * task;
  const at = (i: number): number => taskAt(tasks) + size1 * i;
  const knownAt = (i: number, task: number): number => at(i) + INVOCATION_SIZE + KNOWN_SIZE * task;
  const strayAt = (i: number, n: number): number => knownAt(i, tasks) + straySize * n;
  const size = at(invocations);
  const names: number[] = [];
  for (let k = slotAt(0); k < slotAt(slots); k += 1) names.push(k);
  for (let task = 0; task < tasks; task += 1) names.push(taskAt(task) + BY);
  const next = new Uint8Array(size);
  const base = new Uint8Array(size);
  const rules = {
    selfAbort: on("self-abort"),
    fromSending: on("lease-from-sending"),
    check: on("check-before-starting"),
    expiredFlag: on("expired-flag"),
    neverOneself: on("never-oneself"),
    oneTransaction: on("one-transaction"),
    seq: on("seq"),
    tellAgain: on("tell-again"),
    refuseLower: on("refuse-lower-seq"),
    releaseFence: on("release-fence"),
    suspects: on("suspects"),
    suspectsAlone: on("suspects-alone"),
    forgiveness: on("forgiveness"),
    unacknowledged: on("unacknowledged"),
    newestOnly: on("newest-only"),
    sameNumber: on("same-number"),
    endUnholds: on("end-unholds"),
    noneAfterEnd: on("none-after-end"),
    witnessSeen: on("witness-seen"),
    witnessGap: on("witness-gap"),
    fenceHolder: on("fence-holder"),
    fenceAttempt: on("fence-attempt"),
  };
  const model: Model = { size, label: "", telling: false, next, initial, successors, canonical };
  let broken: Invariant | undefined;
  let claimed: number;

  function initial(): Uint8Array {
    return new Uint8Array(size);
  }

  const name = (i: number): string => "ABC"[i]!;
  const breaks = (invariant: Invariant): void => {
    if (watched(invariant)) broken ??= invariant;
  };

  function successors(s: Uint8Array, emitState: Emit): void {
    const emit = (label: () => string): void => {
      broken ??= examine(next);
      if (model.telling) model.label = label();
      else canonical(next);
      emitState(broken);
      broken = undefined;
    };
    const begin = (): Uint8Array => {
      next.set(s);
      return next;
    };

    advance(s, begin, emit);
    if (may("outage") && s[0]! < 2) {
      begin()[0] = s[0]! + 1;
      emit(() => (s[0] === 0 ? "the database is away" : "the database is back"));
    }
    let first = true;
    for (let i = 0; i < invocations; i += 1) {
      const o = at(i);
      const life = s[o + LIFE];
      if (life === UNBORN) {
        if (first) start(s, i, begin, emit);
        first = false;
        continue;
      }
      if (s[0] !== 1) {
        if (s[o + AWAITED] === ON_ITS_WAY) handle(s, i, -1, emit);
        for (let n = 0; n < strays; n += 1) if (s[strayAt(i, n)]! > 0) handle(s, i, n, emit);
      }
      if (life === ALIVE) live(s, i, begin, emit);
    }
  }

  type Begin = () => Uint8Array;
  type Tell = (label: () => string) => void;

  function start(s: Uint8Array, i: number, begin: Begin, emit: Tell): void {
    const fresh = s.subarray(at(0), at(invocations)).every((nibble) => nibble === 0);
    for (let slot = 0; slot < (fresh ? 1 : slots); slot += 1) {
      for (const onlyFree of may("only-free") ? [0, ONLY_FREE] : [0]) {
        const n = begin();
        const o = at(i);
        n[o + LIFE] = ALIVE;
        n[o + FLAGS] = onlyFree;
        n[o + SLOT] = slot;
        n[o + LEASE_AGE] = UNCONFIRMED;
        n[o + AWAITED] = ON_ITS_WAY;
        n[o + REQUEST] = places | ALONE;
        emit(() => `${name(i)} starts at slot ${slot}${onlyFree > 0 ? " if it is free" : ""} and asks for ${places}`);
      }
    }
  }

  /** What a living process may do. */
  function live(s: Uint8Array, i: number, begin: Begin, emit: Tell): void {
    const o = at(i);
    const flags = s[o + FLAGS]!;
    if (may("crash")) {
      die(begin(), i);
      emit(() => `${name(i)} is killed`);
    }
    if ((flags & FROZEN) > 0) {
      const n = begin();
      const over = rules.selfAbort && s[o + LEASE_AGE] === LEASE;
      n[o + FLAGS] = (flags & ~FROZEN) | (over ? OVERDUE : 0);
      emit(() => `${name(i)} thaws`);
      return;
    }
    if (may("freeze")) {
      begin()[o + FLAGS] = (flags & ~OVERDUE) | FROZEN;
      emit(() => `${name(i)} freezes`);
    }
    if (s[o + AWAITED] === ANSWERED) {
      deliver(begin(), i, RUNNING, emit);
      if (may("ahead") && tells(s, i)) deliver(begin(), i, WAITING, emit);
    }
    if ((flags & OVERDUE) > 0) {
      die(begin(), i);
      emit(() => `${name(i)}'s timer finds the lease over: it stops`);
      return;
    }
    work(s, i, begin, emit);
    if (s[o + AWAITED] === NOTHING) send(s, i, begin, emit);
    else if (may("loss")) {
      repeat(s, i, begin, emit);
      if (!rules.sameNumber) goOn(begin(), i, emit);
    }
  }

  function work(s: Uint8Array, i: number, begin: Begin, emit: Tell): void {
    const flags = s[at(i) + FLAGS]!;
    const leaves = s[at(i) + AWAITED] !== NOTHING && (s[at(i) + REQUEST]! & ENDING) > 0;
    for (let task = 0; task < tasks; task += 1) {
      const k = knownAt(i, task);
      if (s[k + KIND] === WAITING) {
        if ((flags & STOPPING) > 0) {
          begin()[k + KIND] = RELEASED;
          emit(() => `${name(i)} gives task ${task} back, which waits for its place`);
        }
        if (leaves && rules.noneAfterEnd) continue;
        begin()[k + KIND] = RUNNING;
        emit(() => `${name(i)} starts task ${task}, which has waited for its place`);
      }
      if (s[k + KIND] !== RUNNING) continue;
      if (may("poison") && task === 0) {
        die(begin(), i);
        emit(() => `task 0, the poison, kills ${name(i)}`);
        continue;
      }
      begin()[k + KIND] = SUCCESS;
      emit(() => `${name(i)} finishes task ${task}`);
      if (may("fail")) {
        begin()[k + KIND] = FAILURE;
        emit(() => `task ${task} fails at ${name(i)}`);
      }
      if ((flags & STOPPING) > 0) {
        begin()[k + KIND] = RELEASED;
        emit(() => `${name(i)} aborts task ${task} to leave`);
      }
    }
    if (may("stop") && (flags & STOPPING) === 0) {
      begin()[at(i) + FLAGS] = flags | STOPPING;
      emit(() => `${name(i)} is asked to leave`);
    }
  }

  /** A new number. Only after the one before was answered. */
  function send(s: Uint8Array, i: number, begin: Begin, emit: Tell): void {
    const o = at(i);
    for (const ending of may("end") || (s[o + FLAGS]! & STOPPING) > 0 ? [0, ENDING] : [0]) {
      const n = begin();
      let running = 0;
      let waiting = 0;
      let results = 0;
      for (let task = 0; task < tasks; task += 1) {
        const k = knownAt(i, task);
        if (n[k + KIND] === RUNNING) running += 1;
        else if (n[k + KIND] === WAITING) waiting += 1;
        else if (n[k + KIND]! > 0) {
          n[k + KIND] = n[k + KIND]! + SENT;
          results += 1;
        }
        const t = taskAt(task);
        if (n[t + BY] === i + 1) n[t + CLAIM_AGE] = Math.min(FAR, n[t + CLAIM_AGE]! + 1);
      }
      if (ending > 0 && running > 0) continue;
      n[o + SEQ_AGE] = Math.min(FAR, n[o + SEQ_AGE]! + 1);
      n[o + CLAIMED_AGE] = Math.min(FAR, n[o + CLAIMED_AGE]! + 1);
      for (let k = 0; k < strays; k += 1) {
        const stray = strayAt(i, k);
        if (n[stray]! > 0) n[stray] = Math.min(1 + FAR, n[stray]! + 1);
      }
      const want = ending > 0 || (n[o + FLAGS]! & STOPPING) > 0 ? 0 : places - running - waiting;
      n[o + AWAITED] = ON_ITS_WAY;
      n[o + SENT_AGE] = 0;
      n[o + REQUEST] = want | ending | (running + waiting === 0 ? ALONE : 0);
      const with_ = results > 0 ? `, ${results} results` : "";
      emit(() =>
        ending > 0 ? `${name(i)} sends its END${with_}` : `${name(i)} sends an exchange: want ${want}${with_}`,
      );
    }
  }

  /** The call is given up and made again under its number. A copy may go on alone: a stray. */
  function repeat(s: Uint8Array, i: number, begin: Begin, emit: Tell): void {
    const o = at(i);
    const answered = s[o + AWAITED] === ANSWERED;
    const n = begin();
    unanswer(n, i);
    n[o + AWAITED] = ON_ITS_WAY;
    n[o + SENT_AGE] = 0;
    emit(() => `${name(i)}'s ${answered ? "answer" : "request"} is lost; it repeats the request`);
    if (answered) return;
    for (let k = 0; k < strays; k += 1) {
      if (s[strayAt(i, k)]! > 0) continue;
      const m = begin();
      const stray = strayAt(i, k);
      m[stray] = 1;
      m[stray + 1] = m[o + REQUEST]!;
      for (let task = 0; task < tasks; task += 1) {
        const kind = m[knownAt(i, task) + KIND]!;
        if (kind <= RELEASED) continue;
        m[stray + 2 + 2 * task] = kind - SENT;
        m[stray + 3 + 2 * task] = m[knownAt(i, task) + KIND_ATTEMPT]!;
      }
      m[o + SENT_AGE] = 0;
      emit(() => `${name(i)} hears nothing and repeats the request; the first copy is still on its way`);
      return;
    }
  }

  /** Takes a request without an answer for one that was heard. */
  function goOn(n: Uint8Array, i: number, emit: Tell): void {
    const o = at(i);
    unanswer(n, i);
    for (let task = 0; task < tasks; task += 1) {
      const k = knownAt(i, task);
      if (n[k + KIND]! > RELEASED) n[k + KIND] = n[k + KIND_ATTEMPT] = 0;
    }
    n[o + AWAITED] = NOTHING;
    n[o + SENT_AGE] = n[o + REQUEST] = 0;
    emit(() => `${name(i)} hears nothing and goes on with the next number`);
  }

  const tells = (s: Uint8Array, i: number): boolean => {
    for (let task = 0; task < tasks; task += 1) if (s[knownAt(i, task) + TOLD]! > 0) return true;
    return false;
  };

  /** @param kind what becomes of the tasks that are told */
  function deliver(n: Uint8Array, i: number, kind: number, emit: Tell): void {
    const o = at(i);
    const status = n[o + ANSWER]!;
    const ended = status === OK && (n[o + REQUEST]! & ENDING) > 0;
    if (status !== OK || ended) {
      die(n, i);
      emit(
        () =>
          `${name(i)} hears ${["", "that it has ended", "gone", "old", "that the seat is taken"][status]}: it stops`,
      );
      return;
    }
    n[o + LEASE_AGE] = rules.fromSending ? n[o + SENT_AGE]! : 0;
    const holds = n[o + LEASE_AGE]! < LEASE;
    if (holds) n[o + FLAGS] = n[o + FLAGS]! & ~OVERDUE;
    let told = 0;
    for (let task = 0; task < tasks; task += 1) {
      const k = knownAt(i, task);
      if (n[k + KIND]! > RELEASED) n[k + KIND] = n[k + KIND_ATTEMPT] = 0;
      if (n[k + TOLD] === 0) continue;
      told += 1;
      if (n[k + KIND] === 0 && (holds || !rules.check)) {
        n[k + KIND] = kind;
        n[k + KIND_ATTEMPT] = n[k + TOLD]!;
        // It starts in the moment before the timer fires.
        if (!holds)
          for (let other = 0; other < invocations; other += 1) if (other !== i && runs(n, other, task)) breaks("once");
      }
    }
    if (!holds && rules.check) die(n, i);
    else if (!holds && rules.selfAbort) n[o + FLAGS] = n[o + FLAGS]! | OVERDUE;
    unanswer(n, i);
    n[o + AWAITED] = NOTHING;
    n[o + SENT_AGE] = n[o + REQUEST] = 0;
    const late = !holds && rules.check ? ": too late, it stops" : kind === WAITING ? ", to wait for their places" : "";
    emit(() => `${name(i)} hears the answer, ${told} tasks told${late}`);
  }

  function unanswer(n: Uint8Array, i: number): void {
    n[at(i) + ANSWER] = 0;
    for (let task = 0; task < tasks; task += 1) n[knownAt(i, task) + TOLD] = 0;
  }

  /** The process is over. What it has sent may still arrive. */
  function die(n: Uint8Array, i: number): void {
    const o = at(i);
    n[o + LIFE] = DEAD;
    n[o + FLAGS] = n[o + FLAGS]! & ONLY_FREE;
    n[o + LEASE_AGE] = n[o + SENT_AGE] = 0;
    unanswer(n, i);
    const sent = n[o + AWAITED] === ON_ITS_WAY;
    if (!sent) n[o + AWAITED] = n[o + REQUEST] = 0;
    for (let task = 0; task < tasks; task += 1) {
      const k = knownAt(i, task);
      if (!sent || n[k + KIND]! <= RELEASED) n[k + KIND] = n[k + KIND_ATTEMPT] = 0;
    }
  }

  function advance(s: Uint8Array, begin: Begin, emit: Tell): void {
    const n = begin();
    let lost = "";
    for (let i = 0; i < invocations; i += 1) {
      const o = at(i);
      if ((s[o + FLAGS]! & OVERDUE) > 0) return;
      // Where poison alone may kill, nobody is slow: each exchange takes no time, and there is one each quarter.
      if (may("poison") && s[o + LIFE] === ALIVE && (s[o + AWAITED] !== NOTHING || s[o + SILENT]! > 0)) return;
      if (n[o + ROW] === LIVE) {
        n[o + SILENT] = Math.min(GRACE + 1, n[o + SILENT]! + 1);
        n[o + SEEN] = WITNESS;
        if (s[0] !== 1 && may("outage")) n[o + SPOKEN_FOR] = 1;
      }
      if (n[o + LIFE] !== ALIVE) continue;
      if (n[o + LEASE_AGE]! < LEASE) n[o + LEASE_AGE] = n[o + LEASE_AGE]! + 1;
      if (n[o + AWAITED] !== NOTHING) n[o + SENT_AGE] = Math.min(LEASE, n[o + SENT_AGE]! + 1);
      if (rules.selfAbort && n[o + LEASE_AGE] === LEASE && (n[o + FLAGS]! & FROZEN) === 0) {
        die(n, i);
        lost += `, ${name(i)}'s lease runs out: it stops`;
      }
    }
    emit(() => `a quarter of grace passes${lost}`);
  }

  /** The database handles a request: exchange_v1, step by step. */
  function handle(s: Uint8Array, i: number, stray: number, emit: Tell): void {
    const b = base;
    b.set(s);
    const o = at(i);
    const from = stray < 0 ? 0 : strayAt(i, stray);
    const age = stray < 0 ? 0 : b[from]! - 1;
    const request = stray < 0 ? b[o + REQUEST]! : b[from + 1]!;
    const results: [kind: number, attempt: number][] = [];
    for (let task = 0; task < tasks; task += 1) {
      const k = knownAt(i, task);
      if (stray >= 0) results.push([b[from + 2 + 2 * task]!, b[from + 3 + 2 * task]!]);
      else results.push(b[k + KIND]! > RELEASED ? [b[k + KIND]! - SENT, b[k + KIND_ATTEMPT]!] : [0, 0]);
    }
    if (stray >= 0) b.fill(0, from, from + straySize);
    const what = (): string => `the database handles ${name(i)}'s ${stray < 0 ? "request" : "stray copy"}`;
    // 1. own row
    const row = b[o + ROW]!;
    const isFirst = row === NO_ROW;
    const slot = slotAt(b[o + SLOT]!);
    const refusal = refuse(b, i, age, (request & ENDING) > 0);
    if (refusal > 0) {
      next.set(b);
      answer(next, i, stray, refusal);
      emit(() => `${what()}: ${["", "it has ended", "gone", "old", "the seat is taken"][refusal]}`);
      return;
    }
    const isNew = isFirst || age < b[o + SEQ_AGE]! || (!rules.seq && age <= b[o + SEQ_AGE]!);

    // 2. the seat
    if (isFirst) {
      b[slot] = b[slot + 1] = i + 1;
      b[o + ROW] = LIVE;
      b[o + CLAIMED_AGE] = FAR;
    }
    const newest = b[slot] === i + 1 && b[slot + 1] === i + 1;
    const gap = rules.witnessGap && b[o + SILENT]! > GAP;
    if (isFirst || gap) b[o + SEEN] = 0;

    let said = "";
    if (isNew) {
      // 3. results
      for (const [task, [kind, attempt]] of results.entries()) if (kind > 0) record(b, i, task, kind, attempt);
      if (b[o + HOLDS_SUSPECT] === 1 && heldBy(b, i) === 0) b[o + HOLDS_SUSPECT] = 0;
      // 4. and 5. the silent
      if (!gap && (b[o + SEEN]! >= WITNESS || !rules.witnessSeen)) said = expire(b, i);
    }

    const finish = (n: Uint8Array, mask: number): void => {
      for (let task = 0; task < tasks; task += 1) if ((mask & (1 << task)) > 0) claim(n, i, task, age);
      // 7. the end
      if ((request & ENDING) > 0 && isNew) end(n, i);
      // 8. beat and answer
      n[o + SILENT] = n[o + SPOKEN_FOR] = 0;
      n[o + SEQ_AGE] = age;
      if (n[o + GHOST] === 1 && isNew && changed(s, n)) breaks("expired");
      if (superseded && mask > 0) breaks("superseded");
      answer(n, i, stray, OK);
      if (n[o + AWAITED] === ANSWERED && (request & ENDING) === 0)
        for (let task = 0; task < tasks; task += 1) {
          const t = taskAt(task);
          const mine = n[t + STATUS] === HELD && n[t + BY] === i + 1 && n[t + CLAIM_AGE]! <= age;
          if (mine && (isNew || rules.tellAgain)) n[knownAt(i, task) + TOLD] = n[t + ATTEMPT]!;
        }
      emit(() => `${what()}${said}${mask > 0 ? `: it claims ${tasksOf(mask)}` : isNew ? "" : ": nothing new"}`);
    };

    // 6. claim. What is due, and in which order, is left open.
    const held = heldBy(b, i);
    const want = request & WANT;
    const mayClaim =
      isNew &&
      (newest || !rules.newestOnly) &&
      (request & ENDING) === 0 &&
      want > 0 &&
      (held === 0 || b[o + CLAIMED_AGE]! > age || !rules.unacknowledged);
    const taker = b[slot + 1]!;
    const superseded = taker > 0 && taker !== i + 1 && b[at(taker - 1) + ROW] === LIVE;
    const limit = 1 << tasks;
    for (let mask = 0; mask < (mayClaim ? limit : 1); mask += 1) {
      if (!isClaimable(b, i, mask, held, want, (request & ALONE) > 0)) continue;
      claimed = mask;
      next.set(b);
      finish(next, mask);
    }
  }

  /** The status of an answer that changes nothing; 0 when the request counts. */
  function refuse(b: Uint8Array, i: number, age: number, ending: boolean): number {
    const o = at(i);
    const row = b[o + ROW]!;
    if (row === ENDED) return b[o + SEQ_AGE] === age && ending ? OK : GONE;
    if (row === EXPIRED) return GONE;
    if (row === LIVE) return age > b[o + SEQ_AGE]! && rules.refuseLower ? OLD : 0;
    const holder = b[slotAt(b[o + SLOT]!)]!;
    const isTaken = holder > 0 && b[at(holder - 1) + ROW] === LIVE;
    return (b[o + FLAGS]! & ONLY_FREE) > 0 && isTaken ? TAKEN : 0;
  }

  function isClaimable(b: Uint8Array, i: number, mask: number, held: number, want: number, alone: boolean): boolean {
    let count = 0;
    let suspects = 0;
    for (let task = 0; task < tasks; task += 1) {
      if ((mask & (1 << task)) === 0) continue;
      if (b[taskAt(task) + STATUS] !== FREE) return false;
      count += 1;
      if (b[taskAt(task) + SUSPECT] === 1) suspects += 1;
    }
    if (count > want) return false;
    if (count === 0 || !rules.suspectsAlone) return true;
    if (b[at(i) + HOLDS_SUSPECT] === 1) return false;
    return suspects === 0 || (count === 1 && held === 0 && alone);
  }

  function claim(n: Uint8Array, i: number, task: number, age: number): void {
    const t = taskAt(task);
    n[t + STATUS] = HELD;
    n[t + BY] = i + 1;
    n[t + ATTEMPT] = n[t + ATTEMPT]! + 1;
    n[t + CLAIM_AGE] = age;
    n[at(i) + CLAIMED_AGE] = age;
    if (n[t + SUSPECT] === 1) n[at(i) + HOLDS_SUSPECT] = 1;
  }

  function record(b: Uint8Array, i: number, task: number, kind: number, attempt: number): void {
    const t = taskAt(task);
    if (b[t + STATUS] !== HELD && (rules.fenceHolder || b[t + STATUS] !== FREE)) return;
    if (rules.fenceHolder && b[t + BY] !== i + 1) return;
    if (rules.fenceAttempt && b[t + ATTEMPT] !== attempt) return;
    if (b[t + BY] !== i + 1 || b[t + ATTEMPT] !== attempt || (kind !== RELEASED && attempt <= b[t + LAST_RUN]!))
      breaks("result");
    if (kind === RELEASED) b[t + FORGIVEN] = b[t + FORGIVEN]! + 1;
    else b[t + LAST_RUN] = attempt;
    b[t + STATUS] = kind === SUCCESS ? DONE : FREE;
    if (kind === FAILURE) {
      b[t + SUSPECT] = 0;
      if (b[t + ATTEMPT]! - b[t + FORGIVEN]! >= maxAttempts) b[t + STATUS] = FAILED;
    }
    b[t + BY] = b[t + CLAIM_AGE] = 0;
  }

  function expire(b: Uint8Array, i: number): string {
    let said = "";
    for (let other = 0; other < invocations; other += 1) {
      const o = at(other);
      if (b[o + ROW] !== LIVE || b[o + SILENT]! <= GRACE || (other === i && rules.neverOneself)) continue;
      if (other === i) breaks("outage");
      if (b[o + SPOKEN_FOR] === 0 && may("outage")) breaks("outage");
      b[o + GHOST] = 1;
      if (rules.expiredFlag) b[o + ROW] = EXPIRED;
      said += `: it expires ${name(other)}`;
      if (!rules.oneTransaction) {
        said += ", and the rescue is cut off";
        continue;
      }
      const count = heldBy(b, other);
      for (let task = 0; task < tasks; task += 1) {
        const t = taskAt(task);
        if (b[t + STATUS] !== HELD || b[t + BY] !== other + 1) continue;
        const forgive = !rules.forgiveness || b[t + SUSPECT] === 1 || count === 1 ? 0 : 1;
        if (forgive === 0) b[t + LOST_COUNTED] = 1;
        else b[t + LOST_FORGIVEN] = b[t + LOST_FORGIVEN]! + 1;
        b[t + FORGIVEN] = b[t + FORGIVEN]! + forgive;
        b[t + LAST_RUN] = b[t + ATTEMPT]!;
        b[t + STATUS] = b[t + ATTEMPT]! - b[t + FORGIVEN]! >= maxAttempts ? FAILED : FREE;
        if (rules.suspects) b[t + SUSPECT] = 1;
        b[t + BY] = b[t + CLAIM_AGE] = 0;
      }
      b[o + HOLDS_SUSPECT] = 0;
    }
    return said;
  }

  function end(n: Uint8Array, i: number): void {
    for (let task = 0; task < tasks && rules.endUnholds; task += 1) {
      const t = taskAt(task);
      if (n[t + STATUS] !== HELD || n[t + BY] !== i + 1) continue;
      n[t + STATUS] = FREE;
      n[t + FORGIVEN] = n[t + FORGIVEN]! + 1;
      n[t + BY] = n[t + CLAIM_AGE] = 0;
    }
    const slot = slotAt(n[at(i) + SLOT]!);
    if (!rules.releaseFence || (n[slot] === i + 1 && n[slot + 1] === i + 1)) n[slot] = 0;
    n[at(i) + ROW] = ENDED;
  }

  function answer(n: Uint8Array, i: number, stray: number, status: number): void {
    const o = at(i);
    if (stray >= 0) return;
    if (n[o + LIFE] === ALIVE) {
      n[o + AWAITED] = ANSWERED;
      n[o + ANSWER] = status;
      return;
    }
    n[o + AWAITED] = NOTHING;
    die(n, i);
  }

  function heldBy(b: Uint8Array, i: number): number {
    let count = 0;
    for (let task = 0; task < tasks; task += 1)
      if (b[taskAt(task) + STATUS] === HELD && b[taskAt(task) + BY] === i + 1) count += 1;
    return count;
  }

  function changed(s: Uint8Array, n: Uint8Array): boolean {
    for (let k = taskAt(0); k < taskAt(tasks); k += 1) if (s[k] !== n[k]) return true;
    return claimed > 0;
  }

  /** Runs it, and believes in its lease. */
  function runs(n: Uint8Array, i: number, task: number): boolean {
    const o = at(i);
    return (
      n[o + LIFE] === ALIVE && (n[o + FLAGS]! & (FROZEN | OVERDUE)) === 0 && n[knownAt(i, task) + KIND] === RUNNING
    );
  }

  function examine(n: Uint8Array): Invariant | undefined {
    for (let task = 0; task < tasks; task += 1) {
      const t = taskAt(task);
      let running = 0;
      for (let i = 0; i < invocations; i += 1) {
        if (!runs(n, i, task)) continue;
        running += 1;
        const held =
          n[t + STATUS] === HELD && n[t + BY] === i + 1 && n[t + ATTEMPT] === n[knownAt(i, task) + KIND_ATTEMPT];
        if (!held && watched("held")) return "held";
      }
      if (running > 1 && watched("once")) return "once";
      const used = n[t + ATTEMPT]! - n[t + FORGIVEN]!;
      if ((used > maxAttempts || n[t + LOST_FORGIVEN]! > 1 + used) && watched("attempts")) return "attempts";
      if (may("poison") && task > 0 && n[t + LOST_COUNTED] === 1 && watched("innocent")) return "innocent";
      if (n[t + STATUS] !== HELD) continue;
      const holder = n[t + BY]! - 1;
      const o = at(holder);
      if (n[o + ROW] !== LIVE && watched("lost")) return "lost";
      if (n[o + LIFE] !== ALIVE || n[o + GHOST] === 1) continue;
      const k = knownAt(holder, task);
      const knows = n[k + KIND]! > 0 && n[k + KIND_ATTEMPT] === n[t + ATTEMPT];
      const willHear =
        n[t + CLAIM_AGE] === 0 &&
        n[o + AWAITED] !== NOTHING &&
        (n[o + AWAITED] !== ANSWERED || n[k + TOLD] === n[t + ATTEMPT] || n[o + ANSWER] !== OK);
      if (!knows && !willHear && watched("untold")) return "untold";
    }
    for (let i = 0; i < invocations; i += 1) if (heldBy(n, i) > places && watched("places")) return "places";
    for (let slot = 0; slot < slots; slot += 1) {
      const taker = n[slotAt(slot) + 1]!;
      if (n[slotAt(slot)] === 0 && taker > 0 && n[at(taker - 1) + ROW] === LIVE && watched("seat")) return "seat";
    }
    return undefined;
  }

  /** Forgets what can have no effect any more, and orders the invocations: their names mean nothing. */
  function canonical(n: Uint8Array): void {
    for (let i = 0; i < invocations; i += 1) forget(n, i);
    for (let slot = 0; slot < slots; slot += 1) {
      const taker = n[slotAt(slot) + 1]!;
      if (taker > 0 && n[at(taker - 1) + ROW] !== LIVE) n[slotAt(slot)] = n[slotAt(slot) + 1] = 0;
    }
    for (let task = 0; task < tasks; task += 1) {
      const t = taskAt(task);
      if (n[t + STATUS] === DONE || n[t + STATUS] === FAILED) n.fill(0, t + BY, t + TASK_SIZE);
    }
    for (let i = 1; i < invocations; i += 1) for (let k = i; k > 0 && isBefore(n, k, k - 1); k -= 1) swap(n, k, k - 1);
  }

  function forget(n: Uint8Array, i: number): void {
    const o = at(i);
    const row = n[o + ROW]!;
    const over = row === ENDED || row === EXPIRED;
    for (let k = 0; k < strays; k += 1) {
      const stray = strayAt(i, k);
      const useless = over || (row === LIVE && rules.refuseLower && n[stray]! - 1 > n[o + SEQ_AGE]!);
      if (useless && n[stray]! > 0) n.fill(0, stray, stray + straySize);
    }
    if (strays === 2 && n[strayAt(i, 0)] === 0 && n[strayAt(i, 1)]! > 0) {
      n.copyWithin(strayAt(i, 0), strayAt(i, 1), strayAt(i, 1) + straySize);
      n.fill(0, strayAt(i, 1), strayAt(i, 1) + straySize);
    }
    if (over) {
      const seq = n[o + SEQ_AGE]!;
      n[o + SILENT] = n[o + SEEN] = n[o + CLAIMED_AGE] = n[o + HOLDS_SUSPECT] = n[o + SPOKEN_FOR] = 0;
      if (rules.expiredFlag) n[o + GHOST] = 0;
      if (n[o + LIFE] === DEAD) {
        n.fill(0, o + LIFE, o + size1);
        n[o + LIFE] = DEAD;
        n[o + ROW] = row;
      } else n[o + SEQ_AGE] = seq;
      return;
    }
    if (n[o + LIFE] !== DEAD || n[o + AWAITED] !== NOTHING || (strays > 0 && n[strayAt(i, 0)]! > 0)) return;
    n[o + SEEN] = n[o + SEQ_AGE] = n[o + CLAIMED_AGE] = n[o + HOLDS_SUSPECT] = n[o + FLAGS] = 0;
    if (row === NO_ROW) n[o + SLOT] = 0;
  }

  function isBefore(n: Uint8Array, i: number, j: number): boolean {
    const a = at(i);
    const b = at(j);
    for (let k = 0; k < size1; k += 1) if (n[a + k] !== n[b + k]) return n[a + k]! < n[b + k]!;
    // Alike but for what names them.
    for (const k of names) if (n[k] === i + 1 || n[k] === j + 1) return n[k] === i + 1;
    return false;
  }

  function swap(n: Uint8Array, i: number, j: number): void {
    const a = at(i);
    const b = at(j);
    for (let k = 0; k < size1; k += 1) {
      const kept = n[a + k]!;
      n[a + k] = n[b + k]!;
      n[b + k] = kept;
    }
    const rename = (k: number): void => {
      if (n[k] === i + 1) n[k] = j + 1;
      else if (n[k] === j + 1) n[k] = i + 1;
    };
    for (const k of names) rename(k);
  }

  return model;
}

function tasksOf(mask: number): string {
  const names = [0, 1].filter((task) => (mask & (1 << task)) > 0);
  return names.map((task) => `task ${task}`).join(" and ");
}

/** The numbers from 0, one for each name on the left of a destructuring. */
function range<N extends number>(count: N): NumbersOf<N> {
  return Array.from({ length: count }, (_, n) => n) as NumbersOf<N>;
}

type NumbersOf<N extends number, Made extends number[] = []> = Made["length"] extends N
  ? Made
  : NumbersOf<N, [...Made, number]>;
