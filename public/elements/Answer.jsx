// The scale between the two labels, and the words of the message shaded by what they did to the decision.
// Colours are inline: Chainlit's style sheet has only the classes that its own pages use.
import { useEffect, useRef } from 'react';

const SHADES = { positive: '234, 88, 12', negative: '37, 99, 235' };

const shade = (strength) => {
  const side = strength > 0 ? SHADES.positive : SHADES.negative;
  return `rgba(${side}, ${(0.65 * Math.abs(strength)).toFixed(3)})`;
};

export default function Answer() {
  const { probability, threshold, names, explanation, note, texts } = props;
  const whole = useRef(null);
  const words = explanation?.words;
  useEffect(() => {
    // The words come after the page was scrolled to its end: scroll there again, unless the reader is elsewhere.
    const answer = whole.current;
    let page = answer?.parentElement;
    while (page && !['auto', 'scroll'].includes(getComputedStyle(page).overflowY)) page = page.parentElement;
    if (!words || !page) return;
    const below = page.scrollHeight - page.scrollTop - page.clientHeight;
    if (below < answer.offsetHeight + 200) page.scrollTo({ top: page.scrollHeight, behavior: 'smooth' });
  }, [Boolean(words)]);
  const percent = `${(100 * probability).toFixed(1)} %`;
  const small = { fontSize: '0.8125rem', color: 'hsl(var(--muted-foreground))' };
  return (
    <div ref={whole} style={{ display: 'flex', flexDirection: 'column', gap: '0.5rem', maxWidth: '36rem', width: '100%' }}>
      <div
        role="meter"
        aria-label={texts.probability}
        aria-valuenow={probability}
        aria-valuemin={0}
        aria-valuemax={1}
        aria-valuetext={percent}
        title={`${texts.probability}: ${percent}`}
        style={{
          position: 'relative',
          height: '0.75rem',
          borderRadius: '0.375rem',
          background: 'hsl(var(--muted))',
          border: '1px solid hsl(var(--border))'
        }}
      >
        <div
          style={{
            width: `${100 * probability}%`,
            minWidth: '0.375rem',
            height: '100%',
            borderRadius: '0.375rem',
            background: `rgb(${probability >= threshold ? SHADES.positive : SHADES.negative})`
          }}
        />
        <div
          style={{
            position: 'absolute',
            left: `${100 * threshold}%`,
            top: '-0.25rem',
            bottom: '-0.25rem',
            width: '2px',
            background: 'hsl(var(--foreground))'
          }}
        />
      </div>
      <div style={{ ...small, display: 'flex', justifyContent: 'space-between', gap: '0.5rem' }}>
        <span>0 % · {names[0]}</span>
        <span>{texts.threshold}</span>
        <span>{names[1]} · 100 %</span>
      </div>
      {note ? <div style={small}>{note}</div> : null}
      <div aria-live="polite">
        {explanation?.status ? <div style={small}>{explanation.status}</div> : null}
        {words ? (
          <>
            <div style={{ ...small, marginBottom: '0.25rem' }}>
              {texts.explanation}{' '}
              {[-1, 1].map((side) => (
                <span key={side} style={{ display: 'inline-block', background: shade(side * 0.6), padding: '0 0.375rem', marginRight: '0.375rem', borderRadius: '0.25rem', color: 'hsl(var(--foreground))' }}>
                  {side < 0 ? '←' : '→'} {names[side < 0 ? 0 : 1]}
                </span>
              ))}
            </div>
            <div dir="auto" className="explained-words" style={{ whiteSpace: 'pre-wrap', overflowWrap: 'anywhere', lineHeight: 1.8 }}>
              {words.map(({ text, strength, logOdds }, index) => (
                <span
                  key={index}
                  title={`${logOdds > 0 ? '+' : ''}${logOdds} · ${logOdds > 0 ? names[1] : names[0]}`}
                  style={{ background: shade(strength), borderRadius: '0.1875rem' }}
                >
                  {text}
                </span>
              ))}
            </div>
          </>
        ) : null}
      </div>
    </div>
  );
}
