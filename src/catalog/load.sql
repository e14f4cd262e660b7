select 'namespace' as kind, n.oid::text as a,
  n.nspname::text as b,
  null::text as c, null::text as d, null::text as e, null::text as f, null::text as g, null::text as h
from pg_catalog.pg_namespace n
where :small
union all
select 'relation', c.oid::text,
  n.nspname::text, c.relname::text, c.relkind::text, c.relowner::text,
  (select pg_catalog.json_agg(pg_catalog.json_build_array(t.attnum, t.attname, t.attgenerated::text) order by t.attnum)::text
    from pg_catalog.pg_attribute t where t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped),
  (select pg_catalog.json_agg(i.inhparent::int8 order by i.inhseqno)::text
    from pg_catalog.pg_inherits i where i.inhrelid = c.oid),
  pg_catalog.concat_ws(' ', case when c.relkind = 'v' and c.reloptions::text ~ 'check_option' then 'checked' end,
    case when c.reloptions::text ~ 'security_invoker=(t|y|on|1)' then 'invoker' end,
    case when c.relforcerowsecurity then 'forced' end)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c', 't') and c.relpersistence <> 't' and c.oid :relations
union all
select 'base', r.ev_class::text, pg_catalog.split_part(p.piece, ' ', 1),
  pg_catalog.substring(p.piece, ':selectedCols \(b([ 0-9]*)\)'), r.ev_type::text, null, null, null, null
from pg_catalog.pg_rewrite r,
  lateral pg_catalog.unnest(pg_catalog.string_to_array(r.ev_action::text, ':relid ')) as p(piece)
where r.rulename = '_RETURN' and r.ev_class :relations
  and p.piece ~ '^\d+ ' and pg_catalog.substring(p.piece, ':requiredPerms (\d+)') <> '0'
union all
select 'target', r.ev_class::text,
  (select pg_catalog.json_agg(pg_catalog.json_build_array(m.part[1]::int, m.part[2]::int8, m.part[3]::int))::text
    from pg_catalog.regexp_matches(r.ev_action::text,
      ':expr \{VAR [^{}]*\} :resno (\d+) [^{}]*:resorigtbl ([1-9]\d*) :resorigcol (\d+) :resjunk false', 'g') as m(part)),
  null, null, null, null, null, null
from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class and c.relkind = 'v'
where r.rulename = '_RETURN' and r.ev_class :relations and r.ev_class >= 16384
  and r.ev_action::text ~ '^\(\{QUERY [^{}]*:hasAggs false :hasWindowFuncs false :hasTargetSRFs false [^{}]*:cteList <> '
  and r.ev_action::text ~ ':jointree \{FROMEXPR :fromlist \(\{RANGETBLREF :rtindex \d+\}\) '
  and r.ev_action::text ~ ':groupClause <> [^{}]*:havingQual <> [^{}]*:distinctClause <> :sortClause (<>|\(\{[^()]*\}\)) :limitOffset <> :limitCount <> [^{}]*:setOperations <> [^{}]*\}\)$'
union all
select 'rule', r.ev_class::text, r.rulename::text, r.ev_type::text,
  case when r.is_instead and r.ev_qual::text = '<>' then 'instead' else 'also' end,
  (select pg_catalog.json_agg(pg_catalog.json_build_array(pg_catalog.split_part(p.piece, ' ', 1)::int8,
      pg_catalog.substring(p.piece, ':selectedCols \(b([ 0-9]*)\)'),
      pg_catalog.substring(p.piece, ':insertedCols \(b([ 0-9]*)\)'),
      pg_catalog.substring(p.piece, ':updatedCols \(b([ 0-9]*)\)'),
      pg_catalog.substring(p.piece, ':requiredPerms (\d+)')::int8))::text
    from pg_catalog.unnest(pg_catalog.string_to_array(r.ev_qual::text
        -- DO INSTEAD NOTHING (CMD_NOTHING) leaves what its condition looks at beside an action that never is.
        || case when r.ev_action::text ~ '^\(\{QUERY :commandType [67] ' then '' else r.ev_action::text end, ':relid ')) as p(piece)
    where p.piece ~ '^\d+ ' and pg_catalog.substring(p.piece, ':requiredPerms (\d+)') <> '0'),
  r.ev_enabled::text, null, null
from pg_catalog.pg_rewrite r where r.rulename <> '_RETURN' and r.ev_class :relations and r.ev_enabled <> 'D'
union all
select 'policy', p.polrelid::text, p.polname::text, p.polcmd::text, pg_catalog.array_to_json(p.polroles::int8[])::text,
  (select pg_catalog.json_agg(pg_catalog.json_build_array(pg_catalog.split_part(x.piece, ' ', 1)::int8,
      pg_catalog.substring(x.piece, ':selectedCols \(b([ 0-9]*)\)'), null, null,
      pg_catalog.substring(x.piece, ':requiredPerms (\d+)')::int8))::text
    from pg_catalog.unnest(pg_catalog.string_to_array(p.polqual::text, ':relid ')) as x(piece)
    where x.piece ~ '^\d+ ' and pg_catalog.substring(x.piece, ':requiredPerms (\d+)') <> '0'),
  (select pg_catalog.json_agg(pg_catalog.json_build_array(pg_catalog.split_part(x.piece, ' ', 1)::int8,
      pg_catalog.substring(x.piece, ':selectedCols \(b([ 0-9]*)\)'), null, null,
      pg_catalog.substring(x.piece, ':requiredPerms (\d+)')::int8))::text
    from pg_catalog.unnest(pg_catalog.string_to_array(coalesce(p.polwithcheck, p.polqual)::text, ':relid ')) as x(piece)
    where x.piece ~ '^\d+ ' and pg_catalog.substring(x.piece, ':requiredPerms (\d+)') <> '0'),
  (select pg_catalog.string_agg(distinct d.refobjid::pg_catalog.regproc::text, ', ')
    from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
      and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.refobjid >= 16384),
  null
from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid and c.relrowsecurity
where p.polrelid :relations
union all
-- Whom policies apply to: as pg_has_role tells it, of the roles that they and the owners of their tables are.
select 'role', r.oid::text, r.rolname::text, case when r.rolsuper or r.rolbypassrls then 'bypasses' end,
  (select pg_catalog.json_agg(i.oid::int8)::text from (
      select pg_catalog.unnest(p.polroles) as oid from pg_catalog.pg_policy p
      union select c.relowner from pg_catalog.pg_class c where c.relrowsecurity) i
    where i.oid <> 0 and pg_catalog.pg_has_role(r.oid, i.oid, 'USAGE')),
  null, null, null, null
from pg_catalog.pg_roles r
where :small and exists (select from pg_catalog.pg_policy)
union all
select 'builtin', n.nspname::text,
  pg_catalog.json_agg(distinct p.proname)::text, null, null, null, null, null, null
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'pg_catalog' and p.oid :functions
group by n.nspname
union all
select 'signatures', null,
  pg_catalog.string_agg(p.oid::text || ' ' || p.proname::text || ' ' || p.proargtypes::text, E'\n' order by p.oid),
  null, null, null, null, null, null
from pg_catalog.pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.oid :functions
union all
select 'function', p.oid::text,
  n.nspname::text, p.proname::text, p.pronargs::text || ' ' || p.pronargdefaults::text,
  l.lanname::text || ' ' || p.prokind::text || ' ' || p.provolatile::text || ' ' || p.prosecdef::text,
  (select pg_catalog.json_agg(coalesce(o.name, '') order by o.at)::text
    from rows from (pg_catalog.unnest(p.proargnames), pg_catalog.unnest(p.proargmodes)) with ordinality as o(name, mode, at)
    where o.mode in ('o', 'b', 't')),
  (select y.typrelid::text from pg_catalog.pg_type y where y.oid = p.prorettype and y.typrelid <> 0),
  case when l.lanname in ('sql', 'plpgsql') and n.nspname not in ('pg_catalog', 'information_schema')
    then pg_catalog.left(p.prosrc, 65536) end
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  join pg_catalog.pg_language l on l.oid = p.prolang
where (n.nspname <> 'pg_catalog' or p.proargmodes is not null) and p.oid :functions
union all
select 'constraint', k.conrelid::text, k.conname::text,
  -- Columns inside expressions are known by what the constraint and its index depend on.
  case when 0 = any (k.conkey) then (select pg_catalog.string_agg(distinct d.refobjsubid::text, ' ')
      from pg_catalog.pg_depend d where d.refobjid = k.conrelid and d.refobjsubid > 0
        and (d.classid, d.objid) in (('pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, k.oid),
          ('pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, k.conindid)))
    else pg_catalog.array_to_string(k.conkey, ' ') end,
  k.contype::text, null, null, null, null
from pg_catalog.pg_constraint k where k.conrelid <> 0 and k.conrelid :relations and k.contype in ('p', 'u', 'x')
union all
select 'trigger', t.tgrelid::text, t.tgname::text, t.tgfoid::text, t.tgtype::text, t.tgenabled::text, null, null, null
from pg_catalog.pg_trigger t where not t.tgisinternal and t.tgrelid :relations and t.tgenabled <> 'D'
union all
-- Functions that did not come with the server: what came with it is nobody's dependency.
select 'call', r.ev_class::text, d.refobjid::text, r.ev_type::text, null, null, null, null, null
from pg_catalog.pg_depend d join pg_catalog.pg_rewrite r on r.oid = d.objid
where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and r.ev_class :relations and r.ev_enabled <> 'D'
  and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.refobjid >= 16384
union all
select 'call', a.adrelid::text, d.refobjid::text, 'default', a.adnum::text, null, null, null, null
from pg_catalog.pg_depend d join pg_catalog.pg_attrdef a on a.oid = d.objid
where d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and a.adrelid :relations
  and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.refobjid >= 16384
union all
select 'call', k.conrelid::text, d.refobjid::text, 'check', null, null, null, null, null
from pg_catalog.pg_depend d join pg_catalog.pg_constraint k on k.oid = d.objid and k.contype = 'c'
where d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and k.conrelid <> 0 and k.conrelid :relations
  and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.refobjid >= 16384
union all
select 'call', t.tgrelid::text, d.refobjid::text, 'trigger', null, null, null, null, null
from pg_catalog.pg_depend d join pg_catalog.pg_trigger t on t.oid = d.objid and d.refobjid <> t.tgfoid
where d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass and t.tgrelid :relations and t.tgenabled <> 'D'
  and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.refobjid >= 16384
union all
select 'setting', coalesce(r.rolname::text, ''), s.setconfig, null, null, null, null, null, null
from (select x.setrole, x.setdatabase, pg_catalog.unnest(x.setconfig) as setconfig
      from pg_catalog.pg_db_role_setting x) s
  left join pg_catalog.pg_roles r on r.oid = s.setrole
where :small and s.setdatabase in (0, (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
  and (s.setrole = 0 or r.oid is not null)
