/* nothing: a filter that does nothing, in C, with every callback: the floor that libmilter itself sets.
 *
 * nothing SOCKET
 */
#include <libmilter/mfapi.h>
#include <stdio.h>

static sfsistat on_connect(SMFICTX *c, char *host, _SOCK_ADDR *address) { (void)c, (void)host, (void)address; return SMFIS_CONTINUE; }
static sfsistat on_word(SMFICTX *c, char *word) { (void)c, (void)word; return SMFIS_CONTINUE; }
static sfsistat on_words(SMFICTX *c, char **words) { (void)c, (void)words; return SMFIS_CONTINUE; }
static sfsistat on_header(SMFICTX *c, char *name, char *value) { (void)c, (void)name, (void)value; return SMFIS_CONTINUE; }
static sfsistat on_body(SMFICTX *c, unsigned char *text, size_t length) { (void)c, (void)text, (void)length; return SMFIS_CONTINUE; }
static sfsistat on_event(SMFICTX *c) { (void)c; return SMFIS_CONTINUE; }

int main(int count, char **words) {
    struct smfiDesc filter = { .xxfi_name = "nothing", .xxfi_version = SMFI_VERSION, .xxfi_connect = on_connect,
                               .xxfi_helo = on_word, .xxfi_envfrom = on_words, .xxfi_envrcpt = on_words,
                               .xxfi_header = on_header, .xxfi_eoh = on_event, .xxfi_body = on_body, .xxfi_eom = on_event,
                               .xxfi_abort = on_event, .xxfi_close = on_event };
    if (count != 2) { fprintf(stderr, "usage: nothing SOCKET\n"); return 2; }
    if (smfi_setconn(words[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS) return 1;
    smfi_setbacklog(512);
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
