import { describe, expect, test } from 'vitest';

import { LAYOUTS, layoutQueries, SERVERS } from '../../../src/config/sql-layouts.ts';
import { readFilterTemplate, readSqlTemplate } from '../../../src/config/sql-template.ts';

describe('queries with named parameters', () => {
  test.each([
    ['SELECT a FROM b WHERE c = :address', ['SELECT a FROM b WHERE c = ', ''], ['address']],
    ['select 1 where :local = :domain', ['select 1 where ', ' = ', ''], ['local', 'domain']],
    ['WITH x AS (SELECT :login) SELECT * FROM x', ['WITH x AS (SELECT ', ') SELECT * FROM x'], ['login']],
    // Casts of PostgreSQL, quoted text and comments hold no parameters.
    [
      "SELECT a::text, 'x:y' FROM b WHERE c = :address::text",
      ["SELECT a::text, 'x:y' FROM b WHERE c = ", '::text'],
      ['address'],
    ],
    [
      'SELECT `a:b` -- :nobody\n FROM "c:d" /* :no? */ WHERE e = :login',
      ['SELECT `a:b` -- :nobody\n FROM "c:d" /* :no? */ WHERE e = ', ''],
      ['login'],
    ],
    ["SELECT 'it''s' WHERE :login <> ''", ["SELECT 'it''s' WHERE ", " <> ''"], ['login']],
  ])('%s', (text, parts, parameters) => {
    expect(readSqlTemplate(text)).toEqual({ ok: true, template: { parts, parameters } });
  });

  test.each([
    ['UPDATE a SET b = :login', 'begins with SELECT'],
    ['SELECT 1', 'says whom it is about'],
    ['SELECT :adress', 'in place of :adress'],
    ["SELECT 1 WHERE a = ':address'", 'without quotes'],
    ["SELECT 1 WHERE a LIKE '%@:domain'", 'without quotes'],
    ['SELECT 1 WHERE a = :login; DROP TABLE a', 'in which ; has no place'],
    ['SELECT 1 WHERE a = ? AND b = :login', 'in which ? has no place'],
    ['SELECT 1 WHERE a = $1 AND b = :login', 'in which $1 has no place'],
    ['SELECT $$:login$$ WHERE a = :login', 'in which $$ has no place'],
    ["SELECT '\\' OR :login = '", 'backslashes'],
    ["SELECT 'open WHERE a = :login", "in which ' has no place"],
    ['SELECT 1 /* WHERE a = :login', 'in which /* has no place'],
    ['SELECT 1 # WHERE a\n = :login', 'in which # has no place'],
  ])('%s is refused', (text, why) => {
    const reading = readSqlTemplate(text);
    expect(reading.ok ? '' : reading.wrong).toContain(why);
  });

  test.each(LAYOUTS.flatMap((layout) => SERVERS.map((server) => [layout, server] as const)))(
    'those of the layout %s for %s are such, and read no passwords',
    (layout, server) => {
      const all = Object.values<readonly string[]>({ ...layoutQueries(layout, server) }).flat();
      expect(all.length).toBeGreaterThan(2);
      for (const text of all) {
        expect([text, readSqlTemplate(text).ok]).toEqual([text, true]);
        expect(text).not.toMatch(/password|LIKE|\*(?! CAST)/i);
      }
    },
  );
});

describe('filters with named parameters', () => {
  test.each([
    ['(mail=:address)', ['(mail=', ')'], ['address']],
    [
      '(&(objectClass=posixAccount)(|(uid=:login)(mail=*@:domain)))',
      ['(&(objectClass=posixAccount)(|(uid=', ')(mail=*@', ')))'],
      ['login', 'domain'],
    ],
    ['(&(cn:dn:2.5.13.5:=x)(uid=:local))', ['(&(cn:dn:2.5.13.5:=x)(uid=', '))'], ['local']],
  ])('%s', (text, parts, parameters) => {
    expect(readFilterTemplate(text)).toEqual({ ok: true, template: { parts, parameters } });
  });

  test.each([
    ['mail=:address', 'parentheses in pairs'],
    ['(mail=:address))(', 'parentheses in pairs'],
    ['(mail=:address)(uid=:login)', 'parentheses in pairs'],
    ['(mail=:adress)', 'in place of :adress'],
    ['(mail=*)', 'says whom it is about'],
  ])('%s is refused', (text, why) => {
    const reading = readFilterTemplate(text);
    expect(reading.ok ? '' : reading.wrong).toContain(why);
  });
});
