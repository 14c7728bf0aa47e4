// Timelines for drawing: of the history of a live page, or as the server makes them of a recording.

import { api } from './api';
import { isLive, timeOf, type Context } from './context';
import { seriesColours } from './theme';
import type { Area } from './stacked';
import type { By, Timeline, TimelineGroup } from './types';

const steps = 600;
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

export function groupName(context: Context, group: TimelineGroup): string {
  if (group.rest > 0) return `${group.rest} more`;
  if (group.site >= 0) return context.tables.label(group.site);
  return group.name || 'none';
}

// areasOf are the largest groups, and the sum of the others.
export function areasOf(context: Context, timeline: Timeline, most: number, hidden: Set<string> = new Set()): Area[] {
  const groups = (timeline.groups ?? []).filter((group) => group.peak > 0);
  const largest = groups.filter((group) => group.rest === 0).slice(0, Math.min(most, seriesColours));
  const others = groups.filter((group) => !largest.includes(group));
  const names = largest.map((group) => groupName(context, group));
  const colours = context.colours[timeline.by as By].of(names);
  const areas = largest
    .map((group, i) => ({
      name: names[i] ?? '',
      brief: group.site >= 0 ? context.tables.brief(group.site) : (names[i] ?? ''),
      colour: colours[i] ?? 'other',
      values: group.values,
    }))
    .filter((area) => !hidden.has(area.name));
  if (others.length > 0) {
    const values = timeline.total.map((_, i) => others.reduce((sum, group) => sum + (group.values[i] ?? 0), 0));
    const number = others.reduce((sum, group) => sum + Math.max(1, group.rest), 0);
    areas.push({ name: `${number} more`, brief: `${number} more`, colour: 'other', values });
  }
  return areas;
}
