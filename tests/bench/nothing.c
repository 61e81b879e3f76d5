/* nothing: a filter that does nothing, in C: the floor that libmilter itself sets.
 *
 * nothing SOCKET [few]
 *
 * With every callback; or with few, those that this milter has: connect, HELO, MAIL, RCPT, headers that owe no reply, and
 * the end of the message. That is the most that any filter on libmilter could reach in this milter's place.
 */
#include <libmilter/mfapi.h>
#include <stdio.h>
#include <string.h>

static int few;

static sfsistat on_connect(SMFICTX *c, char *host, _SOCK_ADDR *address) { (void)c, (void)host, (void)address; return SMFIS_CONTINUE; }
static sfsistat on_word(SMFICTX *c, char *word) { (void)c, (void)word; return SMFIS_CONTINUE; }
static sfsistat on_words(SMFICTX *c, char **words) { (void)c, (void)words; return SMFIS_CONTINUE; }
static sfsistat on_header(SMFICTX *c, char *name, char *value) { (void)c, (void)name, (void)value; return few ? SMFIS_NOREPLY : SMFIS_CONTINUE; }
static sfsistat on_body(SMFICTX *c, unsigned char *text, size_t length) { (void)c, (void)text, (void)length; return SMFIS_CONTINUE; }
static sfsistat on_event(SMFICTX *c) { (void)c; return SMFIS_CONTINUE; }

static sfsistat on_negotiation(SMFICTX *c, unsigned long actions, unsigned long steps, unsigned long f2, unsigned long f3,
                               unsigned long *our_actions, unsigned long *our_steps, unsigned long *o2, unsigned long *o3) {
    (void)c, (void)f2, (void)f3;
    *our_actions = actions;
    *our_steps = few ? steps & (SMFIP_NOBODY | SMFIP_NOEOH | SMFIP_NODATA | SMFIP_NOUNKNOWN | SMFIP_NR_HDR) : 0;
    *o2 = *o3 = 0;
    return SMFIS_CONTINUE;
}

int main(int count, char **words) {
    struct smfiDesc filter = { .xxfi_name = "nothing", .xxfi_version = SMFI_VERSION, .xxfi_connect = on_connect,
                               .xxfi_helo = on_word, .xxfi_envfrom = on_words, .xxfi_envrcpt = on_words,
                               .xxfi_header = on_header, .xxfi_eoh = on_event, .xxfi_body = on_body, .xxfi_eom = on_event,
                               .xxfi_abort = on_event, .xxfi_close = on_event, .xxfi_data = on_event,
                               .xxfi_negotiate = on_negotiation };
    few = count == 3 && strcmp(words[2], "few") == 0;
    if (count != 2 && !few) { fprintf(stderr, "usage: nothing SOCKET [few]\n"); return 2; }
    if (smfi_setconn(words[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS) return 1;
    smfi_setbacklog(512);
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
