// How far a file is, and a button to stop.
import { Button } from '@/components/ui/button';
import { useState } from 'react';

export default function Progress() {
  const [stopping, setStopping] = useState(false);
  const { done, total, count, stop } = props;
  const stopTask = () => {
    setStopping(true);
    callAction({ name: 'stop_file', payload: {} });
  };
  return (
    <div style={{ display: 'flex', alignItems: 'center', gap: '0.75rem', maxWidth: '36rem', width: '100%', flexWrap: 'wrap' }}>
      <div
        role="progressbar"
        aria-valuenow={done}
        aria-valuemin={0}
        aria-valuemax={total}
        aria-valuetext={count}
        style={{ flex: '1 1 10rem', height: '0.75rem', borderRadius: '0.375rem', background: 'hsl(var(--muted))', border: '1px solid hsl(var(--border))' }}
      >
        <div style={{ width: `${(100 * done) / total}%`, height: '100%', borderRadius: '0.375rem', background: 'rgb(37, 99, 235)', transition: 'width 0.3s' }} />
      </div>
      <span style={{ fontVariantNumeric: 'tabular-nums' }}>{count}</span>
      <Button variant="outline" size="sm" onClick={stopTask} disabled={stopping}>
        {stop}
      </Button>
    </div>
  );
}
