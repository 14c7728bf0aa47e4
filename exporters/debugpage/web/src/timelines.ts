// Timelines for drawing: of the history of a live page, or as the server makes them of a recording.

import { api } from './api';
import { count, legible } from './format';
import { isLive, timeOf, type Context } from './context';
import { seriesColours } from './theme';
import type { Area } from './stacked';
import type { By, Timeline, TimelineGroup } from './types';

const steps = 600;
const rest = 'rest'; // the key of the sum of others
const got = new Map<By, Promise<Timeline>>();

export async function loadTimeline(context: Context, by: By): Promise<Timeline> {
  if (isLive(context)) return context.history.timeline(by, context.tables);
  let answer = got.get(by);
  if (!answer) {
    got.set(by, (answer = api.timeline(by, steps)));
    answer.catch(() => got.delete(by)); // the next one asks again
  }
  const timeline = await answer;
  await context.tables.need(timeline.known);
  return timeline;
}

export function timesOf(context: Context, timeline: Timeline): number[] {
  return timeline.total.map((_, i) => timeOf(context, timeline.begin_us + i * timeline.step_us) / 1000);
}

function moreOf(groups: number): string {
  return `${count(groups)} more`;
}

export function groupName(context: Context, group: TimelineGroup): string {
  if (group.rest > 0) return moreOf(group.rest);
  if (group.site >= 0) return context.tables.label(group.site);
  return legible(group.name) || 'none';
}

// groupKey tells groups apart: two sites can have the same name.
export function groupKey(group: TimelineGroup): string {
  return group.rest > 0 ? rest : group.site >= 0 ? String(group.site) : `/${group.name}`;
}

// areasOf are the largest groups, and the sum of the others.
export function areasOf(context: Context, timeline: Timeline, most: number): Area[] {
  const groups = (timeline.groups ?? []).filter((group) => group.peak > 0);
  const largest = groups.filter((group) => group.rest === 0).slice(0, Math.min(most, seriesColours));
  const others = groups.filter((group) => !largest.includes(group));
  const colours = context.colours[timeline.by as By].of(largest.map(groupKey));
  const areas: Area[] = largest.map((group, i) => ({
    key: groupKey(group),
    name: groupName(context, group),
    brief: group.site >= 0 ? context.tables.brief(group.site) : groupName(context, group),
    colour: colours[i] ?? 'other',
    values: group.values,
  }));
  if (others.length > 0) {
    const values = timeline.total.map((_, i) => others.reduce((sum, group) => sum + (group.values[i] ?? 0), 0));
    const name = moreOf(others.reduce((sum, group) => sum + Math.max(1, group.rest), 0));
    areas.push({ key: rest, name, brief: name, colour: 'other', values });
  }
  return areas;
}
