// What a file holds: the share of each label, the spread of the probabilities, the first rows.
import { Table, TableBody, TableCell, TableHead, TableHeader, TableRow } from '@/components/ui/table';

const COLOURS = ['rgb(37, 99, 235)', 'rgb(234, 88, 12)', 'rgb(148, 163, 184)', 'rgb(100, 116, 139)'];

export default function FileResult() {
  const { shares, histogram, histogramTitle, threshold, tableTitle, columns, rows } = props;
  const total = shares.reduce((sum, share) => sum + share.count, 0);
  const highest = Math.max(1, ...histogram);
  const small = { fontSize: '0.75rem', color: 'hsl(var(--muted-foreground))' };
  return (
    <div style={{ display: 'flex', flexDirection: 'column', gap: '0.75rem', maxWidth: '40rem', width: '100%' }}>
      <div aria-hidden="true" style={{ display: 'flex', height: '1.25rem', borderRadius: '0.375rem', overflow: 'hidden' }}>
        {shares.map(({ name, count }, index) => (
          <div key={name} style={{ width: `${(100 * count) / total}%`, background: COLOURS[index] }} />
        ))}
      </div>
      <div style={{ display: 'flex', flexWrap: 'wrap', gap: '0.25rem 1rem', fontSize: '0.875rem' }}>
        {shares.map(({ name, count }, index) =>
          count || index < 2 ? (
            <span key={name}>
              <span style={{ display: 'inline-block', width: '0.75rem', height: '0.75rem', borderRadius: '0.1875rem', marginRight: '0.375rem', background: COLOURS[index] }} />
              {name}: {count.toLocaleString()} ({((100 * count) / total).toFixed(1)} %)
            </span>
          ) : null
        )}
      </div>
      <figure style={{ margin: 0 }}>
        <figcaption style={{ ...small, marginBottom: '0.25rem' }}>{histogramTitle}</figcaption>
        <div style={{ display: 'flex', alignItems: 'flex-end', gap: '2px', height: '7rem', borderBottom: '1px solid hsl(var(--border))' }}>
          {histogram.map((count, bin) => (
            <div key={bin} style={{ flex: 1, display: 'flex', flexDirection: 'column', justifyContent: 'flex-end', height: '100%', textAlign: 'center' }}>
              <span style={small}>{count.toLocaleString()}</span>
              <div
                style={{
                  height: count ? `max(2px, ${(75 * count) / highest}%)` : 0,
                  background: (bin + 0.5) / histogram.length >= threshold ? COLOURS[1] : COLOURS[0],
                  borderRadius: '2px 2px 0 0'
                }}
              />
            </div>
          ))}
        </div>
        <div style={{ ...small, display: 'flex', justifyContent: 'space-between' }}>
          <span>0 %</span>
          <span>50 %</span>
          <span>100 %</span>
        </div>
      </figure>
      <div>
        <div style={{ ...small, marginBottom: '0.25rem' }}>{tableTitle}</div>
        <div tabIndex={0} style={{ overflow: 'auto', maxHeight: '15rem', border: '1px solid hsl(var(--border))', borderRadius: '0.375rem' }}>
          <Table>
            <TableHeader>
              <TableRow>
                {columns.map((column, index) => (
                  <TableHead key={index}>{column}</TableHead>
                ))}
              </TableRow>
            </TableHeader>
            <TableBody>
              {rows.map((row, index) => (
                <TableRow key={index}>
                  {row.map((cell, column) => (
                    <TableCell key={column} dir="auto" style={{ minWidth: cell.length > 30 ? '16rem' : undefined }}>
                      {cell}
                    </TableCell>
                  ))}
                </TableRow>
              ))}
            </TableBody>
          </Table>
        </div>
      </div>
    </div>
  );
}
