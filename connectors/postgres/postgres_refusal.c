/*
 * postgres_refusal.c: see postgres_refusal.h. A code of its own comes before its class.
 */
#include "connectors/postgres/postgres_refusal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"

static const struct row {
    const char *sqlstate; /* five characters, or the two of a class */
    enum postgres_remedy remedy;
    const char *advice;
} rows[] = {
    {"08", POSTGRES_RECONNECT, "connecting again"},
    {"0A", POSTGRES_SUSPECT, "the table or a trigger of it does not take such rows"},
    {"21", POSTGRES_DEAD_LETTER,
     "two texts of the message have ids that the table takes "
     "for one"},
    {"22", POSTGRES_DEAD_LETTER, "a value does not fit its column"},
    {"23", POSTGRES_SUSPECT, "a constraint of the table refuses the row"},
    {"25006", POSTGRES_RECONNECT, "this server is a standby, or set to read only"},
    {"25", POSTGRES_RECONNECT, "connecting again"},
    {"40", POSTGRES_AGAIN, "another transaction was in the way"},
    /* Row security refuses one row with the code of a right that is missing to all, and a trigger
     * looks for a table of its own: so these are doubted, too. */
    {"42501", POSTGRES_DOUBT,
     "GRANT this role SELECT, INSERT, UPDATE and DELETE on it; or its row security refuses the "
     "row"},
    {"42P01", POSTGRES_DOUBT, "create the table: `embedmill schema` prints how"},
    {"3F", POSTGRES_WAIT, "create the schema"},
    {"44", POSTGRES_SUSPECT, "the view does not take such rows"},
    {"53100", POSTGRES_WAIT, "the server's disk is full: give it room"},
    {"53", POSTGRES_WAIT, "the server is short of something"},
    {"54", POSTGRES_DEAD_LETTER, "it is larger than the server takes"},
    {"55P03", POSTGRES_SMALLER, "somebody else holds a lock on the table"},
    {"55006", POSTGRES_WAIT, "the table is in use by something that excludes others"},
    {"57014", POSTGRES_SMALLER, "it took longer than postgres.timeout"},
    {"57P", POSTGRES_RECONNECT, "the server is stopping or starting"},
    {"58", POSTGRES_DOUBT, "the server cannot read or write its files"},
    {"XX", POSTGRES_DOUBT, "see the server's log: something in it is damaged"},
    {"42", POSTGRES_DOUBT, "compare the table with what `embedmill schema` prints"},
    {"P0", POSTGRES_SUSPECT, "a trigger of the table refuses the row"},
    {"", POSTGRES_SUSPECT, "act on these words"},
};

struct postgres_refusal postgres_refusal_find(const char *sqlstate)
{
    const struct row *row = rows;
    /* The last row, of no characters, fits every code. */
    while (strncmp(row->sqlstate, sqlstate, strlen(row->sqlstate)) != 0)
        row++;
    bool is_large = strncmp(sqlstate, "54", 2) == 0;
    enum refusal_scope scope =
        row->remedy <= POSTGRES_SUSPECT ? REFUSES_RECORD : REFUSES_DESTINATION;
    return (struct postgres_refusal){scope, row->remedy, row->advice,
                                     is_large ? DEAD_LETTER(output_too_large)
                                              : DEAD_LETTER(output_refused)};
}

void postgres_message(const char *said, char *out, size_t size)
{
    const char *colon = strstr(said, ":  ");
    /* "ERROR:  " in any language; a colon further on belongs to the sentence. */
    if (colon && colon - said < 40)
        said = colon + 3;
    size_t len = strcspn(said, "\n");
    snprintf(out, size, "%.*s", (int)len, said);
}

/* The code in "FATAL:  28P01: ...", whatever language the first word is in. */
static bool find_sqlstate(const char *message, char out[6])
{
    for (const char *at = strstr(message, ":  "); at; at = strstr(at + 3, ":  ")) {
        size_t n = 0;
        while (n < 5 && (isdigit((unsigned char)at[3 + n]) || isupper((unsigned char)at[3 + n])))
            n++;
        if (n < 5 || at[8] != ':')
            continue;
        memcpy(out, at + 3, 5);
        out[5] = '\0';
        return true;
    }
    return false;
}

bool postgres_refusal_of_login(const char *message, char *out, size_t size)
{
    static const struct {
        const char *sqlstate, *advice;
    } final[] = {{"28P01", "check user and password of postgres.url"},
                 {"28", "allow this user in pg_hba.conf, or name another in postgres.url"},
                 {"3D000", "create the database, or name another in postgres.url"},
                 {"42501", "GRANT this role CONNECT on the database"}};
    char state[6] = "", said[300];
    bool has_state = find_sqlstate(message, state);
    /* Behind the code, its colon and a space. */
    const char *words = has_state ? strstr(message, state) + 7 : message;
    const char *advice = NULL;
    for (size_t i = 0; has_state && !advice && i < sizeof final / sizeof *final; i++)
        if (strncmp(state, final[i].sqlstate, strlen(final[i].sqlstate)) == 0)
            advice = final[i].advice;
    postgres_message(words, said, sizeof said);
    snprintf(out, size, "%s%s%s", said, advice ? ": " : "", advice ? advice : "");
    return advice != NULL;
}
