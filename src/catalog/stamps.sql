select 'relation' as kind, c.oid::text as oid,
  pg_catalog.concat_ws(' ', c.xmin::text, x.stamps) as stamp
from pg_catalog.pg_class c left join (
  select o.relation, pg_catalog.string_agg(o.stamp, ' ' order by o.catalog) as stamps
  from (
    select 1 as catalog, a.attrelid as relation, count(*)::text || '/' || pg_catalog.sum(a.xmin::text::int8)::text as stamp
      from pg_catalog.pg_attribute a where a.attrelid >= 16384 and a.attnum > 0 and a.attrelid in (
        select k.oid from pg_catalog.pg_class k where k.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and k.relpersistence <> 't')
      group by a.attrelid
    union all
    select 2, r.ev_class, count(*)::text || '/' || pg_catalog.sum(r.xmin::text::int8)::text
      from pg_catalog.pg_rewrite r where r.ev_class >= 16384 group by r.ev_class
    union all
    select 3, t.tgrelid, count(*)::text || '/' || pg_catalog.sum(t.xmin::text::int8)::text
      from pg_catalog.pg_trigger t where t.tgrelid >= 16384 and not t.tgisinternal group by t.tgrelid
    union all
    select 4, k.conrelid, count(*)::text || '/' || pg_catalog.sum(k.xmin::text::int8)::text
      from pg_catalog.pg_constraint k where k.conrelid >= 16384 and k.contype in ('p', 'u', 'x', 'c') group by k.conrelid
    union all
    select 5, p.polrelid, count(*)::text || '/' || pg_catalog.sum(p.xmin::text::int8)::text
      from pg_catalog.pg_policy p where p.polrelid >= 16384 group by p.polrelid
    union all
    select 6, i.inhrelid, count(*)::text || '/' || pg_catalog.sum(i.xmin::text::int8)::text
      from pg_catalog.pg_inherits i where i.inhrelid >= 16384 group by i.inhrelid
  ) o group by o.relation
) x on x.relation = c.oid
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c', 't') and c.relpersistence <> 't' and c.oid >= 16384
union all
select 'function', p.oid::text, p.xmin::text from pg_catalog.pg_proc p where p.oid >= 16384
union all
select 'namespace', n.oid::text, n.nspname::text from pg_catalog.pg_namespace n
  where n.nspname !~ '^pg_(toast_)?temp_'
union all
select 'setting', s.setdatabase::text || ' ' || s.setrole::text || ' ' || coalesce(r.rolname::text, ''), s.xmin::text
from pg_catalog.pg_db_role_setting s left join pg_catalog.pg_roles r on r.oid = s.setrole
union all
select 'setting', 'roles', pg_catalog.md5(pg_catalog.concat(
  (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', r.oid, r.rolname, r.rolsuper, r.rolinherit, r.rolbypassrls), ',' order by r.oid)
    from pg_catalog.pg_roles r),
  (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', m.roleid, m.member, m.xmin), ',' order by m.roleid, m.member)
    from pg_catalog.pg_auth_members m)))
where exists (select from pg_catalog.pg_policy)
