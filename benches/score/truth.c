/*
 * What PostgreSQL's own parse analysis says of each statement of a client: a module for
 * shared_preload_libraries of PostgreSQL 15 to 18. Each statement gets one JSON line in truth/PID.jsonl of the
 * data directory: its text, and the permissions that its query asks for, as written and after rewriting.
 *
 * What functions and triggers run is left out: their analysis happens under an error context.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/copy.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/params.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/queryjumble.h"
#include "parser/parse_relation.h"
#else
#include "utils/queryjumble.h"
#endif
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static post_parse_analyze_hook_type next_analyze;
static ProcessUtility_hook_type next_utility;
static ExecutorRun_hook_type next_run;
static ExecutorFinish_hook_type next_finish;
static ExecutorCheckPerms_hook_type next_check;

/* How many utility statements and executors run, one in another; and the outermost statement, if it is a utility. */
static int	depth = 0;
static PlannedStmt *outer;
static const char *outer_text;

static uint64 counter = 0;
static int	file = -1;
/* As the session began with it: the gateway's label. */
static char *label;

/* What a query asks for of one relation. */
typedef struct Asked
{
	Oid			relation;
	AclMode		permissions;
	Bitmapset  *reads;
	Bitmapset  *writes;
} Asked;

typedef struct Asks
{
	List	   *relations;
	List	   *functions;
	bool		rewritten;		/* a view, rules or policies are among them */
	const char *target;			/* of CREATE TABLE AS and CREATE VIEW */
} Asks;

/* Since 16 what is asked for stands apart from the range table. */
#if PG_VERSION_NUM >= 160000
typedef RTEPermissionInfo Entry;
#define NAMES_RELATION(entry) true
#else
typedef RangeTblEntry Entry;
#define NAMES_RELATION(entry) ((entry)->rtekind == RTE_RELATION)
#endif

static void
ask(Asks *asks, Entry *entry)
{
	ListCell   *cell;
	Asked	   *found = NULL;

	if (!NAMES_RELATION(entry) || entry->requiredPerms == 0)
		return;
	foreach(cell, asks->relations)
		if (((Asked *) lfirst(cell))->relation == entry->relid)
			found = lfirst(cell);
	if (found == NULL)
	{
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(entry->relid));

		found = palloc0(sizeof(Asked));
		found->relation = entry->relid;
		asks->relations = lappend(asks->relations, found);
		if (HeapTupleIsValid(tuple))
		{
			Form_pg_class class = (Form_pg_class) GETSTRUCT(tuple);

			asks->rewritten |= class->relkind == RELKIND_VIEW || class->relhasrules || class->relrowsecurity;
			ReleaseSysCache(tuple);
		}
	}
	found->permissions |= entry->requiredPerms;
	found->reads = bms_add_members(found->reads, entry->selectedCols);
	found->writes = bms_add_members(found->writes, entry->insertedCols);
	found->writes = bms_add_members(found->writes, entry->updatedCols);
}

static bool
walk(Node *node, Asks *asks)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_RangeTblEntry:
#if PG_VERSION_NUM < 160000
			ask(asks, (RangeTblEntry *) node);
#endif
			return false;
		case T_FuncExpr:
			asks->functions = list_append_unique_oid(asks->functions, ((FuncExpr *) node)->funcid);
			break;
		case T_Aggref:
			asks->functions = list_append_unique_oid(asks->functions, ((Aggref *) node)->aggfnoid);
			break;
		case T_WindowFunc:
			asks->functions = list_append_unique_oid(asks->functions, ((WindowFunc *) node)->winfnoid);
			break;
		case T_Query:
#if PG_VERSION_NUM >= 160000
			{
				ListCell   *cell;

				foreach(cell, ((Query *) node)->rteperminfos)
					ask(asks, lfirst(cell));
			}
#endif
			return query_tree_walker((Query *) node, walk, asks, QTW_EXAMINE_RTES_BEFORE);
		default:
			break;
	}
	return expression_tree_walker(node, walk, asks);
}

/* The query in a statement, if it has one that is analysed with it. */
static Query *
inner(Query *query, Asks *asks)
{
	while (query != NULL && query->commandType == CMD_UTILITY)
	{
		Node	   *utility = query->utilityStmt;

		if (IsA(utility, ExplainStmt))
			query = (Query *) ((ExplainStmt *) utility)->query;
		else if (IsA(utility, DeclareCursorStmt))
			query = (Query *) ((DeclareCursorStmt *) utility)->query;
		else if (IsA(utility, CreateTableAsStmt))
		{
			asks->target = ((CreateTableAsStmt *) utility)->into->rel->relname;
			query = (Query *) ((CreateTableAsStmt *) utility)->query;
		}
		else
			return NULL;
		if (query == NULL || !IsA(query, Query))
			return NULL;
	}
	return query;
}

/* What is asked for after rewriting; of a query that cannot be rewritten, nothing. */
static bool
rewrite(Query *query, Asks *asks)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;
	List	   *volatile queries = NIL;
	Query	   *copy = copyObject(query);

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		queries = QueryRewrite(copy);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (done)
	{
		ListCell   *cell;

		foreach(cell, queries)
			walk(lfirst(cell), asks);
	}
	return done;
}

/* The number of a relation's last column. */
static AttrNumber
last_column(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	AttrNumber	last = 0;

	if (HeapTupleIsValid(tuple))
	{
		last = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
		ReleaseSysCache(tuple);
	}
	return last;
}

static void
add_columns(StringInfo line, Oid relation, Bitmapset *columns)
{
	const char *comma = "";
	int			member = -1;

	appendStringInfoChar(line, '[');
	while ((member = bms_next_member(columns, member)) >= 0)
	{
		AttrNumber	number = member + FirstLowInvalidHeapAttributeNumber;
		AttrNumber	last = number == 0 ? last_column(relation) : number;

		for (number = number == 0 ? 1 : number; number <= last; number++)
		{
			/* Not of dropped columns. */
			HeapTuple	tuple = SearchSysCacheAttNum(relation, number);

			if (!HeapTupleIsValid(tuple))
				continue;
			appendStringInfoString(line, comma);
			escape_json(line, NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname));
			comma = ",";
			ReleaseSysCache(tuple);
		}
	}
	appendStringInfoChar(line, ']');
}

static void
add_relation(StringInfo line, Asked *asked)
{
	Oid			schema = get_rel_namespace(asked->relation);
	char	   *name = get_rel_name(asked->relation);

	appendStringInfoString(line, "{\"schema\":");
	escape_json(line, isTempNamespace(schema) ? "pg_temp" : get_namespace_name(schema));
	appendStringInfoString(line, ",\"name\":");
	escape_json(line, name ? name : "");
	appendStringInfo(line, ",\"kind\":\"%c\",\"perms\":\"%s%s%s%s\",\"reads\":", get_rel_relkind(asked->relation),
					 asked->permissions & ACL_SELECT ? "r" : "", asked->permissions & ACL_INSERT ? "a" : "",
					 asked->permissions & ACL_UPDATE ? "w" : "", asked->permissions & ACL_DELETE ? "d" : "");
	add_columns(line, asked->relation, asked->reads);
	appendStringInfoString(line, ",\"writes\":");
	add_columns(line, asked->relation, asked->writes);
	appendStringInfoChar(line, '}');
}

static void
add_asks(StringInfo line, const char *key, Asks *asks)
{
	ListCell   *cell;

	appendStringInfo(line, ",\"%s\":[", key);
	foreach(cell, asks->relations)
	{
		if (cell != list_head(asks->relations))
			appendStringInfoChar(line, ',');
		add_relation(line, lfirst(cell));
	}
	appendStringInfoChar(line, ']');
}

static void
add_functions(StringInfo line, Asks *asks)
{
	const char *comma = "";
	ListCell   *cell;

	appendStringInfoString(line, ",\"functions\":[");
	foreach(cell, asks->functions)
	{
		char	   *name = get_func_name(lfirst_oid(cell));
		Oid			schema = get_func_namespace(lfirst_oid(cell));

		if (name == NULL)
			continue;
		appendStringInfoString(line, comma);
		escape_json(line, psprintf("%s.%s", get_namespace_name(schema), name));
		comma = ",";
	}
	appendStringInfoChar(line, ']');
}

static const char *commands[] = {"UNKNOWN", "SELECT", "UPDATE", "INSERT", "DELETE", "MERGE", "UTILITY", "NOTHING"};

/* Writes what is known of one statement, whose text stands at a place of the client's whole text. */
static void
report(const char *text, int location, int length, int command, int utility, Asks *asks, Asks *expanded, bool refused)
{
	StringInfoData line;
	char	   *cut;

	text = CleanQuerytext(text, &location, &length);
	cut = pnstrdup(text, length);
	initStringInfo(&line);
	appendStringInfo(&line, "{\"pid\":%d,\"app\":", MyProcPid);
	escape_json(&line, label);
	appendStringInfo(&line, ",\"number\":" UINT64_FORMAT ",\"time\":" INT64_FORMAT ",\"command\":\"%s\",\"utility\":%d",
					 ++counter, GetCurrentTimestamp() + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY,
					 commands[command], utility);
	if (asks->target)
	{
		appendStringInfoString(&line, ",\"target\":");
		escape_json(&line, asks->target);
	}
	add_asks(&line, "relations", asks);
	if (expanded)
		add_asks(&line, "expanded", expanded);
	if (refused)
		appendStringInfoString(&line, ",\"refused\":true");
	add_functions(&line, asks);
	appendStringInfoString(&line, ",\"text\":");
	escape_json(&line, cut);
	appendStringInfoString(&line, "}\n");
	if (file < 0)
		file = open(psprintf("truth/%d.jsonl", MyProcPid), O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0644);
	if (file < 0 || write(file, line.data, line.len) != line.len)
		elog(WARNING, "could not write what is true: %m");
	pfree(line.data);
}

static void
analyzed(ParseState *pstate, Query *query, JumbleState *jumble)
{
	Asks		asks = {0};
	Asks		expanded = {0};
	Query	   *within;
	bool		ran = false;

	if (next_analyze)
		next_analyze(pstate, query, jumble);
	if (label == NULL)
		label = strdup(application_name ? application_name : "");
	/* A prepared statement that is bound is analysed again, if what it names may have changed. */
	if (error_context_stack != NULL &&
		(error_context_stack->callback != ParamsErrorCallback || error_context_stack->previous != NULL))
		return;
	if (depth > 1 || MyProcPort == NULL || label == NULL)
		return;
	if (depth == 1)
	{
		/* Of utilities these analyse a query of the client's text. */
		if (outer == NULL || !(IsA(outer->utilityStmt, PrepareStmt) || IsA(outer->utilityStmt, CopyStmt) ||
							   IsA(outer->utilityStmt, ViewStmt) || IsA(outer->utilityStmt, ExecuteStmt)))
			return;
		if (IsA(outer->utilityStmt, ViewStmt))
			asks.target = ((ViewStmt *) outer->utilityStmt)->view->relname;
	}
	within = inner(query, &asks);
	if (within == NULL)
		return;
	walk((Node *) within, &asks);
	if (asks.rewritten)
		ran = rewrite(within, &expanded);
	report(depth ? outer_text : pstate->p_sourcetext, depth ? outer->stmt_location : query->stmt_location,
		   depth ? outer->stmt_len : query->stmt_len, within->commandType,
		   depth ? nodeTag(outer->utilityStmt) : query->utilityStmt ? nodeTag(query->utilityStmt) : 0,
		   &asks, ran ? &expanded : NULL, asks.rewritten && !ran);
}

/* COPY of a table passes no analysis, but its permissions are checked. */
static bool
#if PG_VERSION_NUM >= 160000
checked(List *relations, List *entries, bool complain)
#else
checked(List *entries, bool complain)
#endif
{
	if (depth == 1 && outer && IsA(outer->utilityStmt, CopyStmt) && error_context_stack == NULL &&
		((CopyStmt *) outer->utilityStmt)->relation != NULL)
	{
		Asks		asks = {0};
		ListCell   *cell;

		foreach(cell, entries)
			ask(&asks, lfirst(cell));
		report(outer_text, outer->stmt_location, outer->stmt_len, CMD_UTILITY, nodeTag(outer->utilityStmt), &asks, NULL, false);
	}
#if PG_VERSION_NUM >= 160000
	return next_check ? next_check(relations, entries, complain) : true;
#else
	return next_check ? next_check(entries, complain) : true;
#endif
}

static void
utility(PlannedStmt *statement, const char *text, bool keep, ProcessUtilityContext context, ParamListInfo parameters,
		QueryEnvironment *environment, DestReceiver *receiver, QueryCompletion *completion)
{
	int			before = depth;

	if (depth == 0)
	{
		outer = statement;
		outer_text = text;
	}
	depth++;
	PG_TRY();
	{
		(next_utility ? next_utility : standard_ProcessUtility) (statement, text, keep, context, parameters,
																 environment, receiver, completion);
	}
	PG_FINALLY();
	{
		depth = before;
		if (depth == 0)
			outer = NULL;
	}
	PG_END_TRY();
}

static void
#if PG_VERSION_NUM >= 180000
run(QueryDesc *query, ScanDirection direction, uint64 count)
#else
run(QueryDesc *query, ScanDirection direction, uint64 count, bool once)
#endif
{
	depth++;
	PG_TRY();
	{
#if PG_VERSION_NUM >= 180000
		(next_run ? next_run : standard_ExecutorRun) (query, direction, count);
#else
		(next_run ? next_run : standard_ExecutorRun) (query, direction, count, once);
#endif
	}
	PG_FINALLY();
	{
		depth--;
	}
	PG_END_TRY();
}

static void
finish(QueryDesc *query)
{
	depth++;
	PG_TRY();
	{
		(next_finish ? next_finish : standard_ExecutorFinish) (query);
	}
	PG_FINALLY();
	{
		depth--;
	}
	PG_END_TRY();
}

void
_PG_init(void)
{
	mkdir("truth", 0755);
	next_analyze = post_parse_analyze_hook;
	post_parse_analyze_hook = analyzed;
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	next_run = ExecutorRun_hook;
	ExecutorRun_hook = run;
	next_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish;
	next_check = ExecutorCheckPerms_hook;
	ExecutorCheckPerms_hook = checked;
}
