// A driver's library for the tests: what it says stands in the file that FAKE_NVML names, one line a GPU:
// product used total temperature ecc xid. -1 for "not supported"; a negative `used` is the status that reading
// ends in, negative; a changed xid is an event. Where there is no file, nothing can be asked (999).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { char product[96]; long long used, total, temperature, ecc, xid, seen; } Gpu;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { void *device; unsigned long long type, data; unsigned gi, ci; } Event;
static Gpu gpus[16];
static int count;

static int refresh(void) {
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    if (!file) return 999;
    for (count = 0; count < 16; count++) {
        Gpu *g = &gpus[count];
        if (fscanf(file, "%95s %lld %lld %lld %lld %lld", g->product, &g->used, &g->total, &g->temperature,
                   &g->ecc, &g->xid) != 6) break;
    }
    fclose(file);
    return 0;
}

int nvmlInit_v2(void) { memset(gpus, 0, sizeof gpus); return refresh(); }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) { *device = &gpus[i]; return 0; }
int nvmlEventSetCreate(void **set) { *set = gpus; return 0; }
int nvmlDeviceRegisterEvents(void *d, unsigned long long types, void *set) { return types == 8 ? 0 : 2; }
int nvmlDeviceGetName(Gpu *g, char *name, unsigned length) {
    snprintf(name, length, "%s", g->product);
    return 0;
}
int nvmlDeviceGetMemoryInfo(Gpu *g, Memory *m) {
    if (refresh() != 0) return 999;
    if (g->used < 0) return -g->used;
    m->total = g->total; m->used = g->used; m->free = g->total - g->used;
    return 0;
}
int nvmlDeviceGetTemperature(Gpu *g, unsigned sensor, unsigned *t) {
    if (g->temperature < 0 || sensor != 0) return 3;
    *t = g->temperature;
    return 0;
}
int nvmlDeviceGetTotalEccErrors(Gpu *g, unsigned type, unsigned counter, unsigned long long *n) {
    if (g->ecc < 0 || type != 1 || counter != 0) return 3;
    *n = g->ecc;
    return 0;
}
int nvmlEventSetWait_v2(void *set, Event *event, unsigned timeout_ms) {
    for (unsigned waited = 0; waited < timeout_ms; waited += 20) {
        if (refresh() != 0) return 999;
        for (int i = 0; i < count; i++) {
            if (gpus[i].xid > 0 && gpus[i].xid != gpus[i].seen) {
                gpus[i].seen = gpus[i].xid;
                event->device = &gpus[i]; event->type = 8; event->data = gpus[i].xid;
                return 0;
            }
        }
        usleep(20000);
    }
    return 10;
}
