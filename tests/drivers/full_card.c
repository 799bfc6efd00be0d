// A machine with one card, all of whose memory others hold, as torch asks about it: CUDA's runtime and driver as far
// as the first allocation, which fails. It is put before CUDA's own runtime (LD_PRELOAD) and found as the driver.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <string.h>

#define TOTAL ((size_t)80 << 30)
static __thread cudaError_t last;

static cudaError_t said(cudaError_t error) { return last = error; }

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last;
    last = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void) { return last; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return said(cudaSuccess); }
cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return said(cudaSuccess); }
cudaError_t cudaGetDevice(int *device) { *device = 0; return said(cudaSuccess); }
cudaError_t cudaSetDevice(int device) { return said(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaDeviceSynchronize(void) { return said(cudaSuccess); }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *card, int device) {
    memset(card, 0, sizeof *card);
    strcpy(card->name, "NVIDIA-A100");
    card->totalGlobalMem = TOTAL;
    card->major = 8;
    card->multiProcessorCount = 108;
    card->warpSize = 32;
    return said(cudaSuccess);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = *greatest = 0;
    return said(cudaSuccess);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return said(cudaSuccess);
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    *mode = cudaStreamCaptureModeGlobal;
    return said(cudaSuccess);
}
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *free = 0;
    *total = TOTAL;
    return said(cudaSuccess);
}
cudaError_t cudaMalloc(void **memory, size_t bytes) {
    *memory = NULL;
    return said(cudaErrorMemoryAllocation);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    *flags = *active = 0;
    return CUDA_SUCCESS;
}
